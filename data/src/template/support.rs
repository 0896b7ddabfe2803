//! What a template uses that minijinja renders otherwise than Jinja2, or not at all.

use super::tokens::{Token, code, tokens};

/// What a template uses that is not supported: what, and on which line.
pub(super) type Unsupported = (String, usize);

/// Most pieces of one expression. minijinja compiles a chain of operators by a call per operator,
/// and a stack overflow ends the program.
const PIECES: usize = 2_000;
/// Most branches of all tags together, for the same reason.
const BRANCHES: usize = 2_000;
/// Filters of text that is not escaped again.
const SAFE: [&str; 4] = ["safe", "e", "escape", "forceescape"];
/// Tags that have an end, besides `set`.
const BLOCKS: [&str; 8] = ["for", "if", "macro", "call", "filter", "with", "generation", "raw"];
/// Dicts' methods that Jinja2 finds before a key of the same name.
const METHODS: [&str; 6] = ["items", "keys", "values", "get", "update", "pop"];

/// Looks through a template.
///
/// # Errors
/// What is not supported, with its line.
pub(super) fn check(source: &str) -> Result<(), Unsupported> {
    let mut open: Vec<&str> = Vec::new();
    let mut branches = 0;
    for inner in code(source) {
        let line = source[..inner.start].matches('\n').count() + 1;
        let is_tag = source[..inner.start].ends_with('%');
        let pieces = tokens(&source[inner]);
        let refused = |what: &str| Err((what.to_owned(), line));
        if pieces.len() > PIECES {
            return refused(&format!("more than {PIECES} names, operators and brackets in one tag"));
        }
        if let Some(what) = in_an_expression(&pieces) {
            return Err((what, line));
        }
        let mut words = pieces.iter().map(|token| token.text).filter(|text| !matches!(*text, "-" | "+"));
        let Some(word) = words.next().filter(|_| is_tag) else { continue };
        match word {
            "autoescape" => return refused("`autoescape`"),
            "elif" => branches += 1,
            "break" | "continue" if open.iter().rev().find(|tag| **tag != "if").is_some_and(|tag| *tag != "for") => {
                return refused(&format!("`{word}` in a block within its loop"));
            }
            "set" if !pieces.iter().any(|token| token.text == "=") => open.push("set"),
            _ if word.starts_with("end") => drop(open.pop()),
            _ => open.extend(BLOCKS.into_iter().filter(|tag| *tag == word)),
        }
        if branches > BRANCHES {
            return refused(&format!("more than {BRANCHES} branches"));
        }
    }
    Ok(())
}

fn in_an_expression(pieces: &[Token<'_>]) -> Option<String> {
    let safe = pieces.windows(2).find(|pair| pair[0].text == "|" && SAFE.contains(&pair[1].text));
    if let Some(pair) = safe.filter(|_| pieces.iter().any(|token| matches!(token.text, "+" | "%"))) {
        let filter = pair[1].text;
        return Some(format!("the filter `{filter}` beside `+` or `%`, where Jinja2 escapes the other side"));
    }
    let method = pieces.windows(3).enumerate().find(|(at, three)| {
        let is_called = pieces.get(at + 3).is_some_and(|next| next.text == "(");
        three[0].ends_a_value() && three[1].text == "." && METHODS.contains(&three[2].text) && !is_called
    });
    method
        .map(|(_, three)| format!("the method `.{0}` without a call; a key of that name is `[\"{0}\"]`", three[2].text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_supported_is_named_with_its_line() {
        for (source, what) in [
            ("a\n{{ (x|safe) + y }}", "`safe`"),
            ("\n{{ p.items }}", "`.items`"),
            ("\n{% autoescape true %}", "`autoescape`"),
            ("{% for x in y %}{% generation %}\n{% if x %}{% break %}", "`break`"),
            ("{% for x in y %}{% set a %}\n{% continue %}", "`continue`"),
            ("{% for x in y %}{% if x %}{% set a = 1 %}{% break %}{% endif %}{% endfor %}", ""),
            ("{{ p.items() }}{{ p['items'] }}{{ x|safe }}", ""),
        ] {
            match check(source) {
                Ok(()) => assert_eq!(what, "", "{source}"),
                Err((said, line)) => assert!(!what.is_empty() && said.contains(what) && line == 2, "{said} {line}"),
            }
        }
        for long in [format!("{{{{ 1{} }}}}", "+1".repeat(30_000)), "{% elif x %}".repeat(3_000)] {
            assert!(check(&long).is_err());
        }
    }
}
