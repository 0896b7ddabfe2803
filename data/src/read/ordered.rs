//! Keeps the order of keys where templates show it: of tools, documents and tool calls.
//!
//! A record sorts its keys. What a template writes out by `tojson` has the file's order, so these
//! values are kept as the JSON text that stands in the file.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Record;

/// Columns that hold lists of objects for the template.
const COLUMNS: [&str; 3] = ["tools", "functions", "documents"];

/// Puts the text of the row's own JSON in place of values whose order of keys counts. `messages`
/// names the columns that may hold turns.
pub(super) fn keep_order(text: &str, record: &mut Record, messages: &[&str]) {
    let is_there = |name: &str| record.get(name).is_some_and(Value::is_array);
    if !text.contains("\"tool_calls\"") && !COLUMNS.into_iter().any(is_there) {
        return;
    }
    let Ok(raw) = serde_json::from_str::<HashMap<String, &RawValue>>(text) else { return };
    for name in COLUMNS {
        if let (Some(value), Some(raw)) = (record.get_mut(name).filter(|value| value.is_array()), raw.get(name)) {
            *value = Value::String(raw.get().to_owned());
        }
    }
    for name in messages {
        let (Some(Value::Array(turns)), Some(raw)) = (record.get_mut(*name), raw.get(*name)) else { continue };
        let Ok(raw) = serde_json::from_str::<Vec<Turn<'_>>>(raw.get()) else { continue };
        for (turn, raw) in turns.iter_mut().zip(raw) {
            if let (Some(calls), Some(raw)) =
                (turn.get_mut("tool_calls").filter(|calls| calls.is_array()), raw.tool_calls)
            {
                *calls = Value::String(raw.get().to_owned());
            }
        }
    }
}

#[derive(Deserialize)]
struct Turn<'t> {
    #[serde(borrow, default)]
    tool_calls: Option<&'t RawValue>,
}
