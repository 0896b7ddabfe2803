//! One JSON object per line.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader};

use serde_json::{Map, Value};

use super::{DataError, Row, Source};

/// Reads row by row; blank lines are passed over.
pub(super) fn read(source: &Source, take: &mut dyn FnMut(Row<'_>) -> Result<(), DataError>) -> Result<(), DataError> {
    let io = |error| DataError::Io { file: source.path.clone(), source: error };
    let syntax = |line, problem: String| DataError::Syntax { file: source.path.clone(), line, problem };
    let mut reader = BufReader::new(File::open(&source.path).map_err(io)?);
    let mut buffer = Vec::new();
    let mut line = 0;
    loop {
        buffer.clear();
        if reader.read_until(b'\n', &mut buffer).map_err(io)? == 0 {
            return Ok(());
        }
        line += 1;
        let text = std::str::from_utf8(&buffer)
            .map_err(|error| syntax(line, format!("not UTF-8 at byte {}", error.valid_up_to() + 1)))?;
        let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { text };
        if text.trim().is_empty() {
            continue;
        }
        let row: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| syntax(line, format!("not a JSON object at column {}: {error}", error.column())))?;
        let cell = |column: &str| {
            row.get(column).ok_or_else(|| DataError::MissingColumn {
                file: source.path.clone(),
                line,
                column: column.to_owned(),
                there: row.keys().cloned().collect(),
            })
        };
        let wrong = |column: &str, value: &Value, expected| DataError::WrongKind {
            file: source.path.clone(),
            line,
            column: column.to_owned(),
            found: kind(value),
            expected,
        };
        let text = cell(&source.text)?;
        let text = text.as_str().ok_or_else(|| wrong(&source.text, text, "a string"))?;
        let label = match cell(&source.label)? {
            Value::String(label) => Cow::Borrowed(label.as_str()),
            value @ (Value::Number(_) | Value::Bool(_)) => Cow::Owned(value.to_string()),
            other => return Err(wrong(&source.label, other, "a string, a number, true or false")),
        };
        take(Row { line, text, label: &label })?;
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
