//! Sums over examples, all together and by group, and the evaluation they make.

use std::collections::BTreeMap;

use rondo_proto::v1::{Evaluation, GroupEvaluation};

/// What one example adds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Share {
    /// Sum of -log p, in nats.
    pub loss: f64,
    /// What the loss is a sum over: tokens that count, or 1 of a classification.
    pub units: u64,
    /// Times it was right.
    pub right: u64,
    /// Times it could have been right: tokens of causal-lm, else 1.
    pub tries: u64,
}

/// Sums of shares in f64.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    share: Share,
    examples: u64,
}

impl Sum {
    fn add(&mut self, share: Share) {
        self.share.loss += share.loss;
        self.share.units += share.units;
        self.share.right += share.right;
        self.share.tries += share.tries;
        self.examples += 1;
    }

    fn loss(&self) -> f64 {
        self.share.loss / self.share.units.max(1) as f64
    }

    fn accuracy(&self) -> f64 {
        self.share.right as f64 / self.share.tries.max(1) as f64
    }
}

/// What a loss is a mean over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossUnit {
    /// Tokens that count.
    Token,
    /// Examples.
    Example,
}

/// The sums of an evaluation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    all: Sum,
    groups: BTreeMap<String, Sum>,
}

impl Scores {
    /// Adds an example, and to its group where it has one.
    pub fn add(&mut self, group: Option<&str>, share: Share) {
        self.all.add(share);
        let Some(group) = group else { return };
        match self.groups.get_mut(group) {
            Some(sum) => sum.add(share),
            None => self.groups.entry(group.to_owned()).or_default().add(share),
        }
    }

    /// Loss per unit and share right, of all examples and of each group. Tokens are counted where
    /// they are the unit, 0 otherwise.
    pub fn evaluation(&self, unit: LossUnit) -> Evaluation {
        let count = |sum: &Sum| match unit {
            LossUnit::Token => sum.share.units,
            LossUnit::Example => 0,
        };
        let group = |(name, sum): (&String, &Sum)| GroupEvaluation {
            group: name.clone(),
            loss: sum.loss(),
            accuracy: sum.accuracy(),
            examples: sum.examples,
            tokens: count(sum),
        };
        Evaluation {
            loss: self.all.loss(),
            accuracy: self.all.accuracy(),
            examples: self.all.examples,
            tokens: count(&self.all),
            groups: self.groups.iter().map(group).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_per_unit_and_groups_stand_apart() {
        let mut scores = Scores::default();
        let share = |loss, units, right, tries| Share { loss, units, right, tries };
        scores.add(Some("open"), share(6.0, 2, 1, 2));
        scores.add(Some("closed"), share(2.0, 8, 4, 8));
        scores.add(Some("open"), share(3.0, 1, 1, 1));
        scores.add(None, share(1.0, 1, 0, 1));
        let evaluation = scores.evaluation(LossUnit::Token);
        // 12 nats over 12 tokens; a mean of the examples' means would be 1.81.
        assert_eq!((evaluation.loss, evaluation.accuracy), (1.0, 0.5));
        assert_eq!((evaluation.examples, evaluation.tokens), (4, 12));
        let groups: Vec<_> =
            evaluation.groups.iter().map(|g| (g.group.as_str(), g.loss, g.accuracy, g.examples, g.tokens)).collect();
        assert_eq!(groups, [("closed", 0.25, 0.5, 1, 8), ("open", 3.0, 2.0 / 3.0, 2, 3)]);
        assert_eq!(scores.evaluation(LossUnit::Example).tokens, 0);
        assert_eq!(Scores::default().evaluation(LossUnit::Token).loss, 0.0);
    }
}
