//! Finds a column's value in a record: by name, by a path into nested values, or by a text with
//! columns in braces.

use std::borrow::Cow;

use serde_json::Value;

use crate::Record;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    /// As it was configured.
    pub(super) name: String,
    parts: Vec<PatternPart>,
}

#[derive(Debug, Clone, PartialEq)]
enum PatternPart {
    /// Text as it stands.
    Text(String),
    /// A column's name or path.
    Column(String),
}

impl Column {
    /// A name, a dotted path, or a text with such in braces.
    pub(super) fn new(name: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = name;
        while let Some((text, (column, after))) =
            rest.split_once('{').and_then(|(text, after)| Some((text, after.split_once('}')?)))
        {
            parts.push(PatternPart::Text(text.to_owned()));
            parts.push(PatternPart::Column(column.to_owned()));
            rest = after;
        }
        match parts.is_empty() {
            true => parts.push(PatternPart::Column(name.to_owned())),
            false => parts.push(PatternPart::Text(rest.to_owned())),
        }
        Self { name: name.to_owned(), parts }
    }

    /// The columns of the file it is made of.
    pub(super) fn bases(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            PatternPart::Column(column) => Some(column.as_str()),
            PatternPart::Text(_) => None,
        })
    }

    /// Whether a file with these columns has it, judging by their names.
    pub(super) fn is_in(&self, columns: &[String]) -> bool {
        self.bases().all(|base| has(columns, base))
    }

    /// The value; `None` where it is absent or null.
    pub(super) fn value<'r>(&self, record: &'r Record) -> Option<Cow<'r, Value>> {
        if let [PatternPart::Column(column)] = self.parts.as_slice() {
            return lookup(record, column).filter(|value| !value.is_null());
        }
        let mut text = String::new();
        for part in &self.parts {
            match part {
                PatternPart::Text(part) => text.push_str(part),
                PatternPart::Column(column) => {
                    text.push_str(&scalar(lookup(record, column)?.as_ref())?);
                }
            }
        }
        Some(Cow::Owned(Value::String(text)))
    }
}

/// Whether `columns` holds a column, or the first part of a path.
pub(super) fn has(columns: &[String], column: &str) -> bool {
    let first = column.split('.').next().unwrap_or(column);
    columns.iter().any(|there| there == column || there == first)
}

/// The value under a column's name or path; `None` where it is absent.
pub(super) fn lookup<'r>(record: &'r Record, column: &str) -> Option<Cow<'r, Value>> {
    if let Some(value) = record.get(column) {
        return Some(Cow::Borrowed(value));
    }
    let (first, path) = column.split_once('.')?;
    walk(record.get(first)?, path)
}

/// A path below a value; a name below a list stands for that name in each of its objects.
fn walk<'r>(value: &'r Value, path: &str) -> Option<Cow<'r, Value>> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let next = match value {
        Value::Object(object) => object.get(first)?,
        Value::Array(list) => match first.parse::<usize>() {
            Ok(index) => list.get(index)?,
            Err(_) => {
                let each = list.iter().map(|item| walk(item, path).map(Cow::into_owned));
                return each.collect::<Option<Vec<_>>>().map(|each| Cow::Owned(Value::Array(each)));
            }
        },
        _ => return None,
    };
    match rest {
        Some(rest) => walk(next, rest),
        None => Some(Cow::Borrowed(next)),
    }
}

/// A string, number or truth value as text; whole numbers without a decimal point, so that 2.0 is
/// "2".
pub(super) fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                Some(Cow::Owned(format!("{float:.0}")))
            }
            _ => Some(Cow::Owned(number.to_string())),
        },
        Value::Bool(value) => Some(Cow::Owned(value.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A list, also where a CSV field holds it as JSON.
pub(super) fn list(value: Cow<'_, Value>) -> Result<Vec<Value>, Cow<'_, Value>> {
    match value {
        Cow::Borrowed(Value::Array(list)) => Ok(list.clone()),
        Cow::Owned(Value::Array(list)) => Ok(list),
        value => match value.as_str().filter(|text| text.trim_start().starts_with('[')).map(serde_json::from_str) {
            Some(Ok(list)) => Ok(list),
            _ => Err(value),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(column: &str) -> Option<Value> {
        let record = json!({
            "a.b": 1, "a": {"c": [10, {"d": "x"}]}, "null": null, "f": 2.0, "g": 1.5,
            "list": [{"t": "p", "l": "A"}, {"t": "q", "l": "B"}],
        });
        Column::new(column).value(record.as_object().unwrap()).map(Cow::into_owned)
    }

    #[test]
    fn names_paths_and_patterns_find_values() {
        assert_eq!(find("a.b"), Some(json!(1)), "a whole name goes before a path");
        assert_eq!(find("a.c.1.d"), Some(json!("x")));
        assert_eq!(find("list.t"), Some(json!(["p", "q"])));
        assert_eq!(find("list.1.l"), Some(json!("B")));
        assert_eq!(find("<{f}> {a.c.0}/{g}."), Some(json!("<2> 10/1.5.")));
        for absent in ["null", "a.c.7", "a.c.d", "b", "{b}", "list.z"] {
            assert_eq!(find(absent), None, "{absent}");
        }
    }
}
