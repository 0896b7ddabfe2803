//! The turns of a conversation, in OpenAI's words and in ShareGPT's.

use serde_json::{Map, Value, json};

use super::{Column, DataError, Row};
use crate::column::{self, lookup};
use crate::{Conversation, Message, Role};

/// Keys of a turn that templates may use and that are handed on as they are.
const HANDED_ON: [&str; 6] = ["tool_calls", "tool_call_id", "name", "reasoning_content", "thinking", "tool_responses"];
/// Keys of a turn that say something no template is given, so that leaving them out would change
/// what is learnt.
const REFUSED: [&str; 5] = ["function_call", "audio", "images", "prefix", "chat_template_kwargs"];
/// Columns beside the turns that say something no template is given.
const REFUSED_COLUMNS: [&str; 4] = ["chosen", "rejected", "chat_template_kwargs", "function_call"];

/// Reads the turns under a column, with `system`, `tools` and `documents` beside it.
///
/// # Errors
/// A turn without a role or content; a role or a kind of content that cannot be expressed; nothing
/// that the assistant says.
pub(super) fn read(row: Row<'_>, column: &Column) -> Result<Conversation, DataError> {
    let list =
        column::list(row.field(column).value()?).map_err(|value| row.field(column).wrong(&value, "a list of turns"))?;
    let there = |name: &str| lookup(row.record, name).filter(|value| !value.is_null());
    if let Some(name) = REFUSED_COLUMNS.into_iter().find(|name| there(name).is_some_and(|value| !is_empty(&value))) {
        return Err(row.bad(format!("column `{name}` beside `{}` is not supported; remove it", column.name)));
    }
    let mut messages = Vec::with_capacity(list.len() + 1);
    if let Some(system) = there("system").filter(|value| !is_empty(value)) {
        let text = system.as_str().ok_or_else(|| row.bad("column `system` holds no string".to_owned()))?;
        messages.push(Message::new(Role::System, text));
    }
    for (number, turn) in list.iter().enumerate() {
        let bad = |problem: String| row.bad(format!("column `{}`: turn {} {problem}", column.name, number + 1));
        let message = turn.as_object().ok_or_else(|| "is no object".to_owned()).and_then(message).map_err(bad)?;
        if message.role == Role::System && number == 0 && messages.len() == 1 {
            return Err(bad("says what the system says, and so does the column `system`; keep one".to_owned()));
        }
        messages.push(message);
    }
    if !messages.iter().any(|turn| turn.role == Role::Assistant) {
        return Err(row.bad(format!("column `{}` has no turn of the assistant to learn from", column.name)));
    }
    if !messages.iter().any(|turn| turn.role == Role::Assistant && turn.is_learnt) {
        return Err(row.bad(format!("column `{}`: every turn of the assistant has the weight 0", column.name)));
    }
    let list_beside = |names: [&str; 2]| -> Result<Box<str>, DataError> {
        let Some((name, value)) = names.iter().find_map(|name| Some((name, there(name)?))) else {
            return Ok("".into());
        };
        match json_list(&value) {
            Some(text) => Ok(text),
            None => Err(row.bad(format!("column `{name}` holds no list in JSON"))),
        }
    };
    Ok(Conversation {
        messages,
        tools: list_beside(["tools", "functions"])?,
        documents: list_beside(["documents", "documents"])?,
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// A list, or JSON text of one, as text; empty where it has no elements.
fn json_list(value: &Value) -> Option<Box<str>> {
    let text = match value {
        Value::String(text) if text.trim().is_empty() => return Some("".into()),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let list: Vec<Value> = serde_json::from_str(&text).ok()?;
    Some(if list.is_empty() { "".into() } else { text.into() })
}

/// One turn: `role` and `content`, or `from` and `value`.
fn message(turn: &Map<String, Value>) -> Result<Message, String> {
    let named = |keys: [&str; 2]| keys.into_iter().find_map(|key| turn.get(key).filter(|value| !value.is_null()));
    if let Some(key) = REFUSED.into_iter().find(|key| turn.get(*key).is_some_and(|value| !is_empty(value))) {
        return Err(format!("has `{key}`, which is not supported"));
    }
    let role = named(["role", "from"]).and_then(Value::as_str).ok_or("has no `role` that is a string")?;
    let mut extra = Map::new();
    for key in HANDED_ON {
        if let Some(value) = turn.get(key).filter(|value| !is_empty(value)) {
            extra.insert(key.to_owned(), value.clone());
        }
    }
    let content = named(["content", "value"]);
    if role == "function_call" {
        let call = content.and_then(Value::as_str).ok_or("of a function call has no text")?;
        extra.insert("tool_calls".to_owned(), tool_calls(call)?);
        return finished(Role::Assistant, String::new(), extra, turn);
    }
    let role = match role {
        "system" => Role::System,
        "user" | "human" => Role::User,
        "assistant" | "gpt" | "model" | "bot" => Role::Assistant,
        "tool" | "observation" | "function" | "ipython" => Role::Tool,
        "developer" => Role::Developer,
        other => {
            return Err(format!(
                "has the role {other:?}; there are system, developer, user (human), assistant (gpt), tool (observation) and \
                 function_call"
            ));
        }
    };
    let text = match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            extra.insert("content".to_owned(), Value::Array(parts.clone()));
            texts(parts)?
        }
        None if extra.contains_key("tool_calls") => {
            extra.insert("content".to_owned(), Value::Null);
            String::new()
        }
        Some(_) => return Err("has content that is neither a string nor a list of parts".to_owned()),
        None => return Err("has no `content` that is a string or a list of parts".to_owned()),
    };
    finished(role, text, extra, turn)
}

fn finished(
    role: Role,
    text: String,
    mut extra: Map<String, Value>,
    turn: &Map<String, Value>,
) -> Result<Message, String> {
    if let Some(calls) = extra.get_mut("tool_calls") {
        // Kept as text where the file's order of keys matters (see read/ordered.rs).
        if let Some(list) = calls.as_str().map(serde_json::from_str::<Vec<Value>>) {
            list.map_err(|_| "has `tool_calls` that are no list")?;
        } else if !calls.is_array() {
            return Err("has `tool_calls` that are no list".to_owned());
        }
        if role != Role::Assistant {
            return Err("has `tool_calls`, which only the assistant makes".to_owned());
        }
    }
    if role == Role::Assistant && text.trim().is_empty() && !extra.contains_key("tool_calls") {
        return Err("of the assistant is empty".to_owned());
    }
    let is_learnt = match turn.get("weight").or_else(|| turn.get("train")) {
        None | Some(Value::Null) => true,
        Some(Value::Bool(learnt)) => *learnt,
        Some(weight) => match weight.as_f64() {
            Some(0.0) => false,
            Some(1.0) => true,
            _ => return Err(format!("has the weight {weight}; a turn counts (1) or does not (0)")),
        },
    };
    let extra = if extra.is_empty() { "".into() } else { written(extra).into() };
    Ok(Message { is_learnt, extra, ..Message::new(role, text) })
}

/// The further keys as JSON; those that are JSON text already stand as they are.
fn written(extra: Map<String, Value>) -> String {
    let entries = extra.into_iter().map(|(key, value)| {
        let value = match (key.as_str(), value) {
            ("tool_calls", Value::String(text)) => text,
            (_, value) => value.to_string(),
        };
        format!("{}:{value}", Value::String(key))
    });
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}

/// The texts of content in parts.
fn texts(parts: &[Value]) -> Result<String, String> {
    let mut all = String::new();
    for part in parts {
        match (part, part.get("type").and_then(Value::as_str)) {
            (Value::String(text), _) => all.push_str(text),
            (_, Some("text" | "input_text" | "output_text") | None) => {
                all.push_str(part.get("text").and_then(Value::as_str).ok_or("has a part without `text`")?);
            }
            (_, Some(other)) => {
                return Err(format!(
                    "has a part of the type {other:?}; only text can be learnt, no image, audio or video"
                ));
            }
        }
    }
    Ok(all)
}

/// ShareGPT's call of a function: JSON with `name` and `arguments`, one or a list.
fn tool_calls(text: &str) -> Result<Value, String> {
    let calls: Value = serde_json::from_str(text).map_err(|_| "of a function call is no JSON")?;
    let calls = if let Value::Array(list) = calls { list } else { vec![calls] };
    if calls.is_empty() || !calls.iter().all(|call| call.get("name").is_some_and(Value::is_string)) {
        return Err("of a function call names no function (`name` and `arguments`)".to_owned());
    }
    Ok(calls.into_iter().map(|call| json!({ "type": "function", "function": call })).collect())
}
