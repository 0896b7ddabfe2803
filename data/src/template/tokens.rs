//! The pieces of a template's source: tags, and names and operators within them.

use std::ops::Range;

/// What stands between `{{` and `}}` and between `{%` and `%}`, outside of comments.
pub(super) fn code(source: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find('{').map(|index| at + index) {
        let close = match source.as_bytes().get(open + 1) {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            Some(b'#') => {
                at = source[open + 2..].find("#}").map_or(source.len(), |index| open + 2 + index + 2);
                continue;
            }
            _ => {
                at = open + 1;
                continue;
            }
        };
        let start = open + 2;
        let Some(end) = end_of_code(source, start, close) else { break };
        found.push(start..end);
        at = end + 2;
    }
    found
}

/// Where the closing delimiter stands, which is in no string and behind all brackets.
fn end_of_code(source: &str, start: usize, close: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let (mut at, mut depth, mut quote) = (start, 0_usize, None);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, _) if depth == 0 && source.as_bytes()[at..].starts_with(close.as_bytes()) => return Some(at),
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

/// A piece of an expression.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Token<'s> {
    pub(super) text: &'s str,
    pub(super) start: usize,
}

impl Token<'_> {
    pub(super) fn end(self) -> usize {
        self.start + self.text.len()
    }

    /// Whether a value ends with it.
    pub(super) fn ends_a_value(self) -> bool {
        const WORDS: [&str; 10] = ["if", "elif", "else", "in", "and", "or", "not", "is", "set", "return"];
        let first = self.text.chars().next().unwrap_or(' ');
        (first.is_alphanumeric() || "_\"')]}".contains(first)) && !WORDS.contains(&self.text)
    }
}

/// Strings, names, numbers and operators, without the spaces between them.
pub(super) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = code[at..].chars().next() {
        let rest = &code[at..];
        let length = match first {
            '"' | '\'' => string_length(rest, first),
            _ if first.is_alphanumeric() || first == '_' => {
                rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len())
            }
            _ if ["**", "//", "==", "!=", "<=", ">="].iter().any(|operator| rest.starts_with(operator)) => 2,
            _ => first.len_utf8(),
        };
        if !first.is_whitespace() {
            found.push(Token { text: &rest[..length], start: at });
        }
        at += length;
    }
    found
}

fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Index of the first token of the value that ends before `end`: a name, a string or brackets,
/// with all calls, indexes, attributes and filters behind it.
pub(super) fn value_before(tokens: &[Token<'_>], end: usize) -> Option<usize> {
    let mut at = end.checked_sub(1)?;
    loop {
        if !tokens[at].ends_a_value() {
            return None;
        }
        if [")", "]", "}"].contains(&tokens[at].text) {
            at = opening(tokens, at)?;
            if at > 0 && tokens[at].text != "{" && tokens[at - 1].ends_a_value() {
                at -= 1;
                continue;
            }
        }
        match at.checked_sub(1).map(|before| tokens[before].text) {
            Some("." | "|") => at = at.checked_sub(2)?,
            _ => return Some(at),
        }
    }
}

/// Index of the last token of the value that starts at `at`.
pub(super) fn value_behind(tokens: &[Token<'_>], mut at: usize) -> Option<usize> {
    while ["-", "+"].contains(&tokens.get(at)?.text) {
        at += 1;
    }
    let mut last = match tokens[at].text {
        "(" | "[" | "{" => closing(tokens, at)?,
        _ if tokens[at].ends_a_value() => at,
        _ => return None,
    };
    loop {
        match tokens.get(last + 1).map(|token| token.text) {
            Some("." | "|") => last = (last + 2 < tokens.len()).then_some(last + 2)?,
            Some("(" | "[") => last = closing(tokens, last + 1)?,
            _ => return Some(last),
        }
    }
}

fn opening(tokens: &[Token<'_>], close: usize) -> Option<usize> {
    let mut depth = 0_usize;
    (0..=close).rev().find(|&at| {
        match tokens[at].text {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

fn closing(tokens: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    (open..tokens.len()).find(|&at| {
        match tokens[at].text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    })
}
