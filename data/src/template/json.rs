//! `tojson` as transformers has it: Python's `json.dumps`, without escapes for HTML.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// Deepest nesting of lists and objects, as Python's limit on recursion has it at about.
const DEEPEST: usize = 200;

/// The filter: `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
///
/// # Errors
/// A value that JSON does not have, such as an undefined one or a macro; an argument of a kind that
/// `json.dumps` refuses.
pub(super) fn tojson(value: &Value, first: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let named = |name: &str| options.get::<Option<Value>>(name).map(|value| value.filter(|value| !value.is_none()));
    let ascii = match first {
        Some(first) => first.is_true(),
        None => named("ensure_ascii")?.is_some_and(|value| value.is_true()),
    };
    let indent = match named("indent")? {
        None => None,
        Some(value) => Some(match value.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(value.as_i64().unwrap_or(0).clamp(0, 64)).unwrap_or(0)),
        }),
    };
    let sort = named("sort_keys")?.is_some_and(|value| value.is_true());
    let separators = match named("separators")? {
        Some(pair) => {
            let pair: Vec<String> = pair.try_iter()?.map(|text| text.to_string()).collect();
            <[String; 2]>::try_from(pair).map_err(|_| wrong("`separators` must be a pair of strings"))?
        }
        None if indent.is_some() => [",".to_owned(), ": ".to_owned()],
        None => [", ".to_owned(), ": ".to_owned()],
    };
    options.assert_all_used()?;
    let mut writer = Writer { out: String::new(), ascii, indent, sort, separators };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

fn wrong(problem: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {problem}"))
}

struct Writer {
    out: String,
    ascii: bool,
    indent: Option<String>,
    sort: bool,
    separators: [String; 2],
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(wrong("lists and objects are nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.between('[', ']', items.len(), depth, |writer, index| writer.value(&items[index], depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                self.between('{', '}', keys.len(), depth, |writer, index| {
                    let key = &keys[index];
                    writer.key(key)?;
                    writer.out.push_str(&writer.separators[1].clone());
                    writer.value(&value.get_item(key)?, depth + 1)
                })?;
            }
            other => return Err(wrong(&format!("a value of the kind {other} is not in JSON"))),
        }
        Ok(())
    }

    /// Items with separators, on lines of their own where there is an indent.
    fn between(
        &mut self,
        open: char,
        close: char,
        items: usize,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for index in 0..items {
            if index > 0 {
                self.out.push_str(&self.separators[0].clone());
            }
            self.line(depth + 1);
            item(self, index)?;
        }
        if items > 0 {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }

    /// Keys are strings; Python writes numbers, truth values and null as such.
    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default()),
            ValueKind::None => self.string("null"),
            ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.string(&number(key)),
            other => return Err(wrong(&format!("a key of the kind {other} is not in JSON"))),
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                _ if (letter as u32) < 0x20 || (self.ascii && !letter.is_ascii()) => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        // Writing to a string cannot fail.
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                _ => self.out.push(letter),
            }
        }
        self.out.push('"');
    }
}

fn number(value: &Value) -> String {
    match value.is_integer() {
        true => value.to_string(),
        false => f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float),
    }
}

/// A float as Python's `repr` writes it, and infinities as `json.dumps` does.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // The shortest digits that give the same number, and the power of ten.
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
        ] {
            assert_eq!(float(number), right);
        }
    }
}
