//! Where tokenizer and model meet: a tokenizer may have tokens that the model has no row for.

use super::layout::{Codec, Refusal};

impl Codec {
    /// Refuses ids that the model does not know. A text without them can be used all the same.
    pub(super) fn check_ids(&self, ids: &[i64]) -> Result<(), Refusal> {
        match ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= self.vocab_size)) {
            Some(&id) => Err(Refusal::Row(self.beyond(id))),
            None => Ok(()),
        }
    }

    /// What is wrong with an id beyond the vocabulary.
    fn beyond(&self, id: i64) -> String {
        let token = u32::try_from(id).ok().and_then(|id| self.tokenizer.id_to_token(id)).unwrap_or_default();
        format!(
            "token {token:?} has id {id}, but the model's vocab_size is {}: {} has tokens that the model does not \
             know; take the tokenizer that belongs to the model, or leave such texts out",
            self.vocab_size,
            self.path.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rondo_base::tokens::TokenSettings;
    use rondo_data::{Content, Example};
    use rondo_proto::run_file::Task;
    use tokenizers::Tokenizer;
    use tokenizers::models::wordlevel::WordLevel;
    use tokenizers::pre_tokenizers::whitespace::Whitespace;

    use crate::text::tokens::Tokens;

    fn tokens() -> Tokens {
        let words = [("row", 0), ("on", 1), ("sea", 2), ("[UNK]", 3)].map(|(word, id)| (word.to_owned(), id));
        let model = WordLevel::builder().vocab(words.into_iter().collect()).unk_token("[UNK]".into()).build().unwrap();
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(Whitespace {}));
        let path = Path::new("m/tokenizer.json");
        Tokens::new(tokenizer, TokenSettings::default(), path).unwrap().with_vocab_size(2)
    }

    #[test]
    fn a_text_is_refused_only_for_a_token_that_the_model_does_not_know() {
        let named = |said: String| {
            assert!(said.contains("token \"sea\" has id 2") && said.contains("vocab_size is 2"), "{said}");
        };
        let mut tokens = tokens();
        assert_eq!(tokens.ids("row on").unwrap(), [0, 1]);
        named(tokens.ids("row sea").unwrap_err().to_string());
        assert!(tokens.encode(["row on"], 8).is_ok());
        named(tokens.encode(["row on", "row sea"], 8).unwrap_err().to_string());
        let mut task: Task = toml::from_str("kind = \"causal-lm\"\ndataset = \"d\"\nmax_tokens = 8").unwrap();
        let row = |text: &str| [Example::of("d", Content::Text(text.into()), None)];
        assert!(tokens.encode_rows(&row("row on"), &task).is_ok());
        named(tokens.encode_rows(&row("row on sea"), &task).unwrap_err().to_string());
        // What is cut away is not used.
        task.max_tokens = 2;
        assert!(tokens.encode_rows(&row("row on sea"), &task).is_ok());
        let options = ["on", " sea"].map(Into::into).into();
        let question = Example::of("d", Content::Choice { prompt: "row ".into(), options, answer: 0 }, None);
        task.kind = rondo_proto::run_file::TaskKind::MultipleChoice;
        named(tokens.choices(&[question], &task).unwrap_err().to_string());
    }
}
