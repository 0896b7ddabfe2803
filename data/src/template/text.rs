//! Values as Python's `str` and `repr` write them.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// Deepest nesting that is written out. Python's own limit is of this size.
const DEEPEST: usize = 200;

/// `str(value)`: what `{{ value }}` writes.
///
/// # Errors
/// Nested too deeply, or longer than the rendering may still write.
pub(super) fn text(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let mut out = String::new();
    if !value.is_undefined() {
        represent(state, value, 0, &mut out)?;
    }
    Ok(out)
}

/// `repr(value)`: strings in quotes, and all else as [`text`] has it.
///
/// # Errors
/// As of [`text`].
pub(super) fn repr(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    represent(state, value, 0, &mut out)?;
    Ok(out)
}

fn represent(state: &State<'_, '_>, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    // A list may hold another twice, and that one a third: small to build and endless to write.
    state.consume_fuel(1)?;
    if depth > DEEPEST {
        return Err(Error::new(ErrorKind::InvalidOperation, "lists and objects are nested too deeply to be written"));
    }
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            state.consume_fuel(text.len() as u64 / 64)?;
            quoted(text, out);
        }
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Number if !value.is_integer() => {
            out.push_str(&f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float));
        }
        // Slices and sums of lists are iterables here and lists in Python.
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.push(open);
            let mut items = 0;
            for item in value.try_iter()? {
                out.push_str(if items > 0 { ", " } else { "" });
                represent(state, &item, depth + 1, out)?;
                items += 1;
            }
            out.push_str(if items == 1 && value.is_tuple() { "," } else { "" });
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                represent(state, &key, depth + 1, out)?;
                out.push_str(": ");
                represent(state, &value.get_item(&key)?, depth + 1, out)?;
            }
            out.push('}');
        }
        _ => {
            // Formatting into a string cannot fail.
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}

/// A string in Python's quotes, with the escapes that Python chooses.
fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if letter == quote => out.extend(['\\', letter]),
            _ if is_printable(letter) => out.push(letter),
            _ => {
                let code = letter as u32;
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// As Python's `str.isprintable`. Rust's `escape_debug` keeps the same letters; the letter before
/// keeps it from escaping marks that join to what stands before them.
pub(super) fn is_printable(letter: char) -> bool {
    const FIRST: char = 'a';
    if letter.is_ascii() {
        return matches!(letter, ' '..='~');
    }
    let pair: String = [FIRST, letter].iter().collect();
    pair.escape_debug().nth(1) == Some(letter)
}

/// What Python's `str.isspace` and `str.strip` take for space.
pub(super) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{1c}'..='\u{1f}')
}

/// A float as Python's `repr` writes it: the shortest digits that give the same number.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if number != 0.0 && !(-4..16).contains(&exponent) => {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => {
            let plain = format!("{number}");
            if plain.contains('.') { plain } else { plain + ".0" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_those_of_python() {
        for (number, right) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float(number), right);
        }
    }
}
