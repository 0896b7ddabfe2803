//! Rewrites a template's source where Jinja2 knows more syntax than minijinja.

use std::collections::BTreeSet;

use super::support::{self, Unsupported};
use super::tokens::{code, tokens, value_before, value_behind};

/// The filter that `a % b` becomes.
pub(super) const MODULO: &str = "_modulo";
/// The filter through which loops take what they go over.
pub(super) const ITEMS: &str = "_items";
/// Most bytes of a template.
const LONGEST: usize = 1 << 20;

/// The source in words that minijinja has: `{% generation %}` tags, `%` between strings, loops over
/// what may be none, line breaks and escapes as Jinja2 reads them.
///
/// # Errors
/// What is too large to compile, or what Jinja2 renders otherwise and no rewriting fixes.
pub(super) fn rewritten(source: &str) -> Result<String, Unsupported> {
    if source.len() > LONGEST {
        return Err((format!("{} bytes, more than {LONGEST}", source.len()), 1));
    }
    // Jinja2 reads all line breaks as one letter.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    support::check(&source)?;
    let source = without_generation_tags(&source);
    let mut out = String::with_capacity(source.len());
    let mut end = 0;
    for inner in code(&source) {
        out.push_str(&source[end..inner.start]);
        let text = with_items_filter(&source[inner.clone()]);
        out.push_str(&with_escapes(&with_string_filter(&with_modulo_filter(&text))));
        end = inner.end;
    }
    Ok(out + &source[end..])
}

/// `a ~ b` as `a|string ~ b|string`: minijinja writes some numbers otherwise than Python. An
/// operand that binds to more than the operator stays as it is.
fn with_string_filter(code: &str) -> String {
    let tokens = tokens(code);
    let tighter = |at: Option<usize>| {
        let text = at.and_then(|at| tokens.get(at)).map(|token| token.text);
        text.is_some_and(|text| ["*", "/", "//", "%", "**", "is", "|", ".", "not"].contains(&text))
    };
    let mut places = BTreeSet::new();
    for (index, _) in tokens.iter().enumerate().filter(|(_, token)| token.text == "~") {
        if let Some(first) = value_before(&tokens, index) {
            let before = first.checked_sub(1);
            let is_sign = before
                .is_some_and(|at| matches!(tokens[at].text, "-" | "+") && (at == 0 || !tokens[at - 1].ends_a_value()));
            let is_argument = before.is_some_and(|at| tokens[at].ends_a_value());
            if !tighter(before) && !is_sign && !is_argument {
                places.insert(tokens[index - 1].end());
            }
        }
        if let Some(last) = value_behind(&tokens, index + 1).filter(|last| !tighter(Some(last + 1)))
            && !matches!(tokens[index + 1].text, "-" | "+")
        {
            places.insert(tokens[last].end());
        }
    }
    let mut out = String::with_capacity(code.len());
    let mut end = 0;
    for place in places {
        out.push_str(&code[end..place]);
        out.push_str("|string");
        end = place;
    }
    out + &code[end..]
}

/// `{% for x in a if b %}` as `{% for x in (a)|_items if b %}`.
fn with_items_filter(code: &str) -> String {
    let pieces = tokens(code);
    let first = usize::from(pieces.first().is_some_and(|token| matches!(token.text, "-" | "+")));
    let unchanged = code.to_owned();
    if pieces.get(first).is_none_or(|token| token.text != "for") {
        return unchanged;
    }
    let mut depth = 0_usize;
    let (mut from, mut to) = (None, None);
    for (index, token) in pieces.iter().enumerate().skip(first + 1) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            "in" if depth == 0 && from.is_none() => from = pieces.get(index + 1).map(|next| next.start),
            "if" | "recursive" if depth == 0 && from.is_some() && to.is_none() => {
                to = Some(pieces[index - 1].end());
            }
            _ => {}
        }
    }
    // The last piece may be the sign of whitespace control.
    let last = pieces.iter().rev().find(|token| !matches!(token.text, "-" | "+")).map(|token| token.end());
    match (from, to.or(last)) {
        (Some(from), Some(to)) if from < to => {
            format!("{}({})|{ITEMS}{}", &code[..from], &code[from..to], &code[to..])
        }
        _ => unchanged,
    }
}

/// Escapes in strings that Python reads otherwise than minijinja: `\/`, `\a`, `\v`, and one at the
/// end of a line.
fn with_escapes(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut end = 0;
    for token in tokens(code).into_iter().filter(|token| token.text.starts_with(['"', '\''])) {
        out.push_str(&code[end..token.start]);
        let mut letters = token.text.chars();
        while let Some(letter) = letters.next() {
            match (letter, if letter == '\\' { letters.next() } else { None }) {
                ('\\', Some('/')) => out.push_str("\\\\/"),
                ('\\', Some('a')) => out.push_str("\\u0007"),
                ('\\', Some('v')) => out.push_str("\\u000b"),
                ('\\', Some('\n')) => {}
                ('\\', Some(other)) => out.extend(['\\', other]),
                _ => out.push(letter),
            }
        }
        end = token.end();
    }
    out + &code[end..]
}

/// `{% generation %}` marks what the assistant says for transformers' own masks; it renders
/// nothing.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut end = 0;
    for inner in code(source) {
        out.push_str(&source[end..inner.start]);
        let text = &source[inner.clone()];
        match text.trim_matches(['-', '+', ' ', '\n', '\t']) {
            "generation" => out.push_str(&text.replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&text.replacen("endgeneration", "endwith", 1)),
            _ => out.push_str(text),
        }
        end = inner.end;
    }
    out + &source[end..]
}

/// `a % b` as `a|_modulo(b)`: minijinja's own operator knows numbers alone. Where a filter would
/// bind otherwise than the operator does, the operator stays.
fn with_modulo_filter(code: &str) -> String {
    let tokens = tokens(code);
    let mut edits: Vec<(usize, usize, String)> = Vec::new();
    for (index, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "%") {
        let (Some(before), Some(last)) = (value_before(&tokens, index), value_behind(&tokens, index + 1)) else {
            continue;
        };
        let bound = before.checked_sub(1).map(|at| tokens[at].text);
        let is_unary = |at: usize| at == 0 || !tokens[at - 1].ends_a_value();
        let binds_otherwise = match bound {
            Some("*" | "/" | "//" | "%" | "**") => true,
            Some("-" | "+") => is_unary(before - 1),
            _ => false,
        };
        if !binds_otherwise && tokens.get(last + 1).is_none_or(|next| next.text != "**") {
            edits.push((token.start, token.end(), format!("|{MODULO}(")));
            edits.push((tokens[last].end(), tokens[last].end(), ")".to_owned()));
        }
    }
    edits.sort_by_key(|edit| edit.0);
    let mut out = String::with_capacity(code.len());
    let mut end = 0;
    for (from, to, text) in edits {
        out.push_str(&code[end..from]);
        out.push_str(&text);
        end = to;
    }
    out + &code[end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_become_filters_where_they_bind_alike() {
        for (code, right) in [
            ("{{ '%s-%s' % (a, b) }}", "{{ '%s-%s' |_modulo( (a, b)) }}"),
            ("{{ a.b[0] % c.d|upper + 1 }}", "{{ a.b[0] |_modulo( c.d|upper) + 1 }}"),
            ("{{ f(x) % -3 }}", "{{ f(x) |_modulo( -3) }}"),
            ("{% if (loop.index % 2) %}", "{% if (loop.index |_modulo( 2)) %}"),
            ("{% if not (a) % 2 %}", "{% if not (a) |_modulo( 2) %}"),
            ("{{ 2 * a % b }}{{ -a % b }}{{ a % b ** 2 }}", "{{ 2 * a % b }}{{ -a % b }}{{ a % b ** 2 }}"),
            ("{{ 1 - a % b }}", "{{ 1 - a |_modulo( b) }}"),
            ("{{ '{{ a % b }}' }} % {# a % b #}", "{{ '{{ a % b }}' }} % {# a % b #}"),
            ("{{ 'a' % 'b' % 'c' }}", "{{ 'a' |_modulo( 'b') % 'c' }}"),
            ("{% for x in a.b if c %}", "{% for x in (a.b)|_items if c %}"),
            ("{%- for k, v in d|items -%}", "{%- for k, v in (d|items)|_items -%}"),
            (r"{{ '\/\a\n' }}\/", r"{{ '\\/\u0007\n' }}\/"),
            ("{{ 'a' ~ b.c ~ d[0] }}", "{{ 'a'|string ~ b.c|string ~ d[0]|string }}"),
            ("{{ a * b ~ -c ~ d ** 2 }}", "{{ a * b ~ -c ~ d ** 2 }}"),
            ("{%- generation -%}x{% endgeneration %}", "{%- with -%}x{% endwith %}"),
        ] {
            assert_eq!(rewritten(code).unwrap(), right);
        }
    }
}
