//! `tojson` as transformers has it: Python's `json.dumps`, without escapes for HTML.

use std::fmt::Write;

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, State, Value};

use super::arguments::bound;
use super::text::float;

/// Deepest nesting of lists and objects, as Python's limit on recursion has it at about.
const DEEPEST: usize = 200;

/// The filter: `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
///
/// # Errors
/// A value that JSON does not have, such as an undefined one or a macro; an argument of a kind that
/// `json.dumps` refuses; more text than the rendering may still write.
pub(super) fn tojson(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [ascii, indent, separators, sort] =
        bound("tojson", &args.into_values(), ["ensure_ascii", "indent", "separators", "sort_keys"])?
            .map(|value| value.filter(|value| !value.is_none()));
    let indent = match indent {
        None => None,
        Some(value) => Some(match value.as_str() {
            Some(text) => text.to_owned(),
            None => {
                let width = value.as_i64().ok_or_else(|| wrong("`indent` must be a number or a string"))?;
                " ".repeat(usize::try_from(width.clamp(0, 64)).unwrap_or(0))
            }
        }),
    };
    let separators = match separators {
        Some(pair) => {
            let pair = pair.try_iter()?.map(|text| text.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            let pair = pair.and_then(|pair| <[String; 2]>::try_from(pair).ok());
            pair.ok_or_else(|| wrong("`separators` must be a pair of strings"))?
        }
        None if indent.is_some() => [",".to_owned(), ": ".to_owned()],
        None => [", ".to_owned(), ": ".to_owned()],
    };
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let mut writer =
        Writer { state, out: String::new(), ascii: is_true(ascii), indent, sort: is_true(sort), separators };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

fn wrong(problem: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {problem}"))
}

struct Writer<'w, 't, 'e> {
    /// Pays for what is written: a small template can ask for endless text.
    state: &'w State<'t, 'e>,
    out: String,
    ascii: bool,
    indent: Option<String>,
    sort: bool,
    separators: [String; 2],
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.state.consume_fuel(1)?;
        if depth > DEEPEST {
            return Err(wrong("lists and objects are nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String => {
                let text = value.as_str().unwrap_or_default();
                self.state.consume_fuel(text.len() as u64 / 64)?;
                self.string(text);
            }
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
            self.line(depth + 1)?;
            item(self, index)?;
        }
        if items > 0 {
            self.line(depth)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            self.state.consume_fuel((indent.len() * depth) as u64 / 64)?;
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
        Ok(())
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
        false => match f64::try_from(value.clone()) {
            Ok(number) if number.is_nan() => "NaN".to_owned(),
            Ok(number) if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
            Ok(number) => float(number),
            Err(_) => value.to_string(),
        },
    }
}
