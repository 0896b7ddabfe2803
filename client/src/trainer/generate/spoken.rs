//! Tokens as text while they come.

/// What of a growing text can be shown: a character may need several tokens, and only whole ones are told.
#[derive(Debug, Default)]
pub struct Spoken {
    ids: Vec<i64>,
    told: String,
}

impl Spoken {
    /// Takes a token in; `decode` gives the text of all tokens so far. Returns what has become sure since the last call.
    pub fn push(&mut self, id: i64, decode: impl Fn(&[i64]) -> String) -> String {
        self.ids.push(id);
        let text = decode(&self.ids);
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        // A decoder that changes what it said before is waited for.
        let Some(new) = whole.strip_prefix(self.told.as_str()).map(str::to_owned) else { return String::new() };
        self.told.push_str(&new);
        new
    }

    /// The rest, when no more tokens come; a broken character shows as one.
    pub fn finish(self, decode: impl Fn(&[i64]) -> String) -> String {
        let text = decode(&self.ids);
        text.strip_prefix(self.told.as_str()).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_characters_are_told() {
        // One token per byte, as in a byte-level vocabulary.
        let decode =
            |ids: &[i64]| String::from_utf8_lossy(&ids.iter().map(|&id| id as u8).collect::<Vec<_>>()).into_owned();
        let mut spoken = Spoken::default();
        let told: Vec<String> = "aé€b".bytes().map(|byte| spoken.push(byte.into(), decode)).collect();
        assert_eq!(told, ["a", "", "é", "", "", "€", "b"]);
        assert_eq!(spoken.push(0xe2, decode), "");
        assert_eq!(spoken.finish(decode), "\u{fffd}");
    }
}
