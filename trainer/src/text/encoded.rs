//! Texts as token ids, with the tokens that count as something to predict.

use std::ops::Range;

/// Token ids of many texts, end to end; for language models with a flag per token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    ids: Vec<i64>,
    /// As long as `ids`, or empty where no text has flags.
    counts: Vec<bool>,
    /// Text `i` is `ids[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
}

impl Encoded {
    /// No texts.
    pub fn new() -> Self {
        Self { ids: Vec::new(), counts: Vec::new(), starts: vec![0] }
    }

    /// Appends a text's ids; at least one. None of its tokens counts as something to predict.
    pub fn push(&mut self, ids: impl IntoIterator<Item = i64>) {
        self.ids.extend(ids);
        if !self.counts.is_empty() {
            self.counts.resize(self.ids.len(), false);
        }
        self.starts.push(self.ids.len());
    }

    /// Appends a text's ids with a flag each: whether this token is to be predicted from those
    /// before it. The first one never is, whatever its flag says: nothing stands before it.
    pub fn push_counted(&mut self, ids: &[i64], counts: &[bool]) {
        debug_assert_eq!(ids.len(), counts.len());
        let first = self.ids.len();
        self.counts.resize(first, false);
        self.ids.extend_from_slice(ids);
        self.counts.extend_from_slice(counts);
        self.counts.resize(self.ids.len(), false);
        if let Some(first) = self.counts.get_mut(first) {
            *first = false;
        }
        self.starts.push(self.ids.len());
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// True when there are no texts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ids of one text.
    pub fn text(&self, index: usize) -> &[i64] {
        &self.ids[self.span(index)]
    }

    /// Which tokens of a text count as something to predict, one flag per id; the first never does.
    /// Empty for texts that are classified as a whole.
    pub fn counts(&self, index: usize) -> &[bool] {
        if self.counts.is_empty() { &[] } else { &self.counts[self.span(index)] }
    }

    /// Tokens that count, of all texts.
    pub fn counted(&self) -> usize {
        self.counts.iter().filter(|&&counts| counts).count()
    }

    /// Appends a text of another set, with its flags.
    pub fn push_from(&mut self, other: &Self, index: usize) {
        match other.counts(index) {
            [] => self.push(other.text(index).iter().copied()),
            counts => self.push_counted(other.text(index), counts),
        }
    }

    /// Batches of text indices for a pass without gradients: texts of like length together, at most
    /// `max_tokens` tokens each when laid out to the longest (one text alone may be longer).
    pub fn by_length(&self, count: usize, max_tokens: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..count.min(self.len())).collect();
        order.sort_by_key(|&index| (self.text(index).len(), index));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for index in order {
            let length = self.text(index).len();
            match batches.last_mut() {
                Some(batch) if (batch.len() + 1) * length <= max_tokens => batch.push(index),
                _ => batches.push(vec![index]),
            }
        }
        batches
    }

    fn span(&self, index: usize) -> Range<usize> {
        self.starts[index]..self.starts[index + 1]
    }
}

/// Questions of a multiple choice: a text per option, in which the option's tokens count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// Question and option, for every option of every question.
    pub encoded: Encoded,
    /// Where each question's options begin, and the end of the last: one more than there are
    /// questions.
    pub first: Vec<usize>,
    /// Which of its options answers each question.
    pub answers: Vec<usize>,
}

impl Choices {
    /// No questions.
    pub fn new() -> Self {
        Self { encoded: Encoded::new(), first: vec![0], answers: Vec::new() }
    }

    /// Number of questions.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// True when there are no questions.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Indices of the texts that are a question's options.
    pub fn options(&self, question: usize) -> Range<usize> {
        self.first[question]..self.first[question + 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stay_with_their_tokens_and_a_first_token_never_counts() {
        let mut encoded = Encoded::new();
        encoded.push([7]);
        assert_eq!((encoded.counts(0), encoded.counted()), ([].as_slice(), 0));
        encoded.push_counted(&[1, 2, 3], &[true, false, true]);
        encoded.push([4, 5]);
        assert_eq!((encoded.text(0), encoded.counts(0)), ([7].as_slice(), [false].as_slice()));
        assert_eq!((encoded.text(1), encoded.counts(1)), ([1, 2, 3].as_slice(), [false, false, true].as_slice()));
        assert_eq!((encoded.text(2), encoded.counts(2)), ([4, 5].as_slice(), [false, false].as_slice()));
        let mut copy = Encoded::new();
        copy.push_from(&encoded, 1);
        assert_eq!((copy.text(0), copy.counts(0), copy.counted()), (encoded.text(1), encoded.counts(1), 1));
    }
}
