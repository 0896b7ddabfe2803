//! Tokens as text while they come.

/// What of a growing text can be shown: a character may need several tokens, and only whole ones
/// are shown.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    ids: Vec<i64>,
    shown: String,
}

impl StreamDecoder {
    /// Takes a token in; `decode` gives the text of all tokens so far. Returns what has become sure
    /// since the last call.
    ///
    /// # Errors
    /// Those of `decode`.
    pub fn push<E>(&mut self, id: i64, decode: impl Fn(&[i64]) -> Result<String, E>) -> Result<String, E> {
        self.ids.push(id);
        let text = decode(&self.ids)?;
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        // While the decoder changes what it gave before, nothing is shown.
        let new = whole.strip_prefix(self.shown.as_str()).unwrap_or_default().to_owned();
        self.shown.push_str(&new);
        Ok(new)
    }

    /// The rest, when no more tokens come; a broken character shows as one.
    ///
    /// # Errors
    /// Those of `decode`.
    pub fn finish<E>(self, decode: impl Fn(&[i64]) -> Result<String, E>) -> Result<String, E> {
        let text = decode(&self.ids)?;
        Ok(text.strip_prefix(self.shown.as_str()).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_characters_are_shown() {
        // One token per byte, as in a byte-level vocabulary.
        let decode = |ids: &[i64]| -> Result<String, ()> {
            Ok(String::from_utf8_lossy(&ids.iter().map(|&id| id as u8).collect::<Vec<_>>()).into_owned())
        };
        let mut stream = StreamDecoder::default();
        let shown: Vec<String> = "aé€b".bytes().map(|byte| stream.push(byte.into(), decode).unwrap()).collect();
        assert_eq!(shown, ["a", "", "é", "", "", "€", "b"]);
        assert_eq!(stream.push(0xe2, decode), Ok(String::new()));
        assert_eq!(stream.finish(decode), Ok("\u{fffd}".to_owned()));
    }
}
