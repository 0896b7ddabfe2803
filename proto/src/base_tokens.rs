//! Whether a client's base model makes the tokens that a run's base makes.

use crate::v1::{BaseModel, BaseTokens};

/// What is wrong with a client whose model makes other tokens.
pub const OTHER_TOKENS: &str = "its tokenizer, chat template or special tokens differ from the base's";

/// Whether a client has the base with other tokens only. A base without a `token_digest`, or a
/// client that says nothing of the base, is not compared; of several folders with the same weights
/// one that agrees is enough.
pub fn makes_other_tokens(base: &BaseModel, reported: &[BaseTokens]) -> bool {
    let mut of_base = reported.iter().filter(|tokens| tokens.base == base.digest).peekable();
    !base.token_digest.is_empty()
        && of_base.peek().is_some()
        && of_base.all(|tokens| tokens.token_digest != base.token_digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_say_is_compared() {
        let tokens = |base: &str, digest: &str| BaseTokens { base: base.into(), token_digest: digest.into() };
        let base = BaseModel { digest: "weights".into(), token_digest: "one".into(), ..BaseModel::default() };
        assert!(!makes_other_tokens(&base, &[tokens("weights", "one")]));
        assert!(makes_other_tokens(&base, &[tokens("weights", "two")]));
        assert!(!makes_other_tokens(&base, &[tokens("weights", "two"), tokens("weights", "one")]));
        assert!(!makes_other_tokens(&base, &[]), "an old client says nothing");
        assert!(!makes_other_tokens(&base, &[tokens("other", "two")]));
        let old = BaseModel { token_digest: String::new(), ..base };
        assert!(!makes_other_tokens(&old, &[tokens("weights", "two")]), "an old base says nothing");
    }
}
