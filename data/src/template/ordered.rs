//! JSON text as a template's values, with the keys of objects in the order of the text.

use std::fmt;

use minijinja::Value;
use minijinja::value::ValueKind;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON text as a value.
pub(super) fn value(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str::<Json>(text).map(|json| json.0)
}

/// The entries of a JSON object; none of an empty text.
pub(super) fn object(text: &str) -> Result<Vec<(String, Value)>, serde_json::Error> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let whole = value(text)?;
    let keys = whole.try_iter().into_iter().flatten();
    Ok(keys.map(|key| (key.to_string(), whole.get_item(&key).unwrap_or_default())).collect())
}

/// A turn whose reasoning stands under the names that templates know, as transformers puts it.
pub(super) fn with_reasoning(turn: &Value) -> Value {
    const NAMES: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
    let get = |key: &Value| turn.get_item(key).unwrap_or_default();
    let found =
        NAMES.iter().map(|name| get(&Value::from(*name))).find(|value| !value.is_undefined() && !value.is_none());
    let (Some(reasoning), ValueKind::Map) = (found, turn.kind()) else { return turn.clone() };
    let mut entries = Vec::new();
    let thinking = Some(get(&Value::from("thinking"))).filter(|value| !value.is_undefined());
    entries.push((Value::from("thinking"), thinking.unwrap_or_else(|| reasoning.clone())));
    for key in turn.try_iter().into_iter().flatten().filter(|key| key.as_str() != Some("thinking")) {
        let value = if key.as_str() == Some("reasoning_content") { reasoning.clone() } else { get(&key) };
        entries.push((key, value));
    }
    if get(&Value::from("reasoning_content")).is_undefined() {
        entries.push((Value::from("reasoning_content"), reasoning));
    }
    Value::from_pairs(entries)
}

struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading).map(Self)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::from(()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Json(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::from(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map: Vec<(String, Value)> = Vec::new();
        while let Some((key, Json(value))) = entries.next_entry::<String, Json>()? {
            map.push((key, value));
        }
        Ok(Value::from_pairs(map))
    }
}
