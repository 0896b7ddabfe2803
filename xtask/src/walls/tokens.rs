//! A Rust file as words and signs, without comments: as much of a lexer as `use` lines need.

/// Words, `::`, other characters one by one, and literals
/// as `"` and their text. Comments are left out.
pub(super) fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let starts = |prefix: &str| rest.len() >= prefix.len() && prefix.chars().zip(rest).all(|(a, &b)| a == b);
        let raw = raw_string(rest);
        at += match rest[0] {
            c if c.is_whitespace() => 1,
            _ if starts("//") => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
            _ if starts("/*") => block_comment(rest),
            _ if raw.is_some() => {
                tokens.push("\"".to_owned());
                raw.unwrap_or(1)
            }
            '"' => {
                let length = string(rest);
                let inside: String = rest[1..length.max(2) - 1].iter().collect();
                tokens.push(format!("\"{inside}"));
                length
            }
            // A character, not a lifetime.
            '\'' if rest.get(1) == Some(&'\\') => 4 + rest.iter().skip(3).position(|&c| c == '\'').unwrap_or(0),
            '\'' if rest.get(2) == Some(&'\'') => 3,
            c if is_word(c) => {
                let length = rest.iter().position(|&c| !is_word(c)).unwrap_or(rest.len());
                tokens.push(rest[..length].iter().collect());
                length
            }
            _ if starts("::") => {
                tokens.push("::".to_owned());
                2
            }
            c => {
                tokens.push(c.to_string());
                1
            }
        };
    }
    tokens
}

/// Length of the comment, which may hold others.
fn block_comment(chars: &[char]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

/// Length of the literal with both quotes.
fn string(chars: &[char]) -> usize {
    let mut at = 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// Length of a raw string literal, if one starts here.
fn raw_string(chars: &[char]) -> Option<usize> {
    let prefix = if chars[0] == 'b' { 2 } else { 1 };
    if chars.get(prefix - 1) != Some(&'r') {
        return None;
    }
    let hashes = chars[prefix..].iter().take_while(|&&c| c == '#').count();
    if chars.get(prefix + hashes) != Some(&'"') {
        return None;
    }
    let body = prefix + hashes + 1;
    let ends =
        |at: &usize| chars[*at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
    let end = (body..chars.len()).find(ends).unwrap_or(chars.len() - 1);
    Some((end + 1 + hashes).min(chars.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_signs_and_literals_are_kept_apart() {
        let text = "a::b_1 /* x /* y */ */ // z\n'c' 'd \"e \\\" f\" r#\"g \" h\"# b\"i\" '\\'' j";
        let want = ["a", "::", "b_1", "'", "d", "\"e \\\" f", "\"", "b", "\"i", "j"];
        assert_eq!(tokens(text), want);
    }

    #[test]
    fn what_is_not_closed_ends_with_the_file() {
        for text in ["/* a", "\"a", "r#\"a", "'\\", "'"] {
            assert!(tokens(text).len() <= 2, "{text}");
        }
    }
}
