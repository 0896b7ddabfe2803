//! The chat template, in a file of its own or in tokenizer_config.json.

use std::io;
use std::path::Path;

use serde_json::Value as Json;

use super::{SettingsFile, quoted};
use crate::error::BaseError;

const FILE: &str = "chat_template.jinja";
const KEY: &str = "chat_template";
/// Of several templates the one that is used.
const DEFAULT: &str = "default";

/// The template of a folder: its own file comes first.
pub(super) fn find(dir: &Path, tokenizer: &SettingsFile) -> Result<Option<String>, BaseError> {
    let path = dir.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(template) => Ok(Some(template)),
            Err(_) => Err(BaseError::Config { path, problem: "is not UTF-8".to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => in_config(tokenizer),
        Err(source) => Err(BaseError::Io { path, source }),
    }
}

/// A template, or of several the one named "default": a list of objects with `name` and
/// `template`, or an object by name.
fn in_config(file: &SettingsFile) -> Result<Option<String>, BaseError> {
    let refuse = |value: &Json| {
        let value = quoted(value);
        file.refuse(format!("`{KEY}` holds {value}; it is a template's text, or a list of `name` and `template`"))
    };
    let text = |value: &Json| value.as_str().map(str::to_owned).ok_or_else(|| refuse(value));
    match file.get(KEY) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Array(named)) => {
            let mut found = None;
            for one in named {
                let (Some(name), Some(template)) = (one.get("name").and_then(Json::as_str), one.get("template")) else {
                    return Err(refuse(one));
                };
                let template = text(template)?;
                // Of two by one name the last counts.
                if name == DEFAULT {
                    found = Some(template);
                }
            }
            Ok(found)
        }
        Some(Json::Object(named)) => named.get(DEFAULT).map(text).transpose(),
        Some(template) => text(template).map(Some),
    }
}
