//! One row as a JSON object: its columns, or what is wrong with its text.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::ordered::keep_order;
use super::{DataError, Record, Source};
use crate::error::Place;

/// Parses a row. `where_in` tells where in the row an error stands, by line and column.
///
/// # Errors
/// Not UTF-8; not an object; a column that stands there twice.
pub(super) fn parse(
    source: &Source,
    bytes: &[u8],
    at: Place,
    where_in: fn(usize, usize) -> String,
) -> Result<Record, DataError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        super::syntax(source, at, format!("not UTF-8 at byte {} of the row", error.valid_up_to() + 1))
    })?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = parser.deserialize_any(Columns).and_then(|record| parser.end().map(|()| record));
    let mut record = parsed.map_err(|error| {
        // A parser's own "line 1" would be taken for the file's; what is wrong as a whole is at no
        // column.
        let place = if error.column() == 0 { String::new() } else { where_in(error.line(), error.column()) };
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or(&said);
        let problem = match said.strip_prefix(TWICE) {
            Some(name) => format!("the column `{name}` stands there twice"),
            None => format!("not a JSON object{place}: {said}"),
        };
        super::syntax(source, at, problem)
    })?;
    let named = source.mapping.messages.as_deref().unwrap_or("messages");
    keep_order(text, &mut record, &[named, "conversations"]);
    Ok(record)
}

/// Marks the error of a column that stands twice.
const TWICE: &str = "twice: ";

/// Builds a record and refuses a column that stands there twice, of which one would be lost.
struct Columns;

impl<'de> Visitor<'de> for Columns {
    type Value = Record;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Record, A::Error> {
        let mut record = Record::new();
        while let Some((name, value)) = entries.next_entry::<String, Value>()? {
            if record.contains_key(&name) {
                return Err(serde::de::Error::custom(format!("{TWICE}{name}")));
            }
            record.insert(name, value);
        }
        Ok(record)
    }
}
