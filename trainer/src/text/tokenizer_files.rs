//! The files next to tokenizer.json in a Hugging Face folder: special tokens and the chat template.

use std::path::Path;

use rondo_data::template::SpecialTokens;

use crate::error::TrainerError;

/// What these files say.
pub(super) struct TokenizerFiles {
    /// By name, for example `eos_token` = `</s>`.
    pub(super) special: SpecialTokens,
    /// The source of the chat template.
    pub(super) chat: Option<String>,
}

impl TokenizerFiles {
    /// Reads tokenizer_config.json, special_tokens_map.json and chat_template.jinja of a folder;
    /// each may be absent.
    pub(super) fn read(dir: &Path) -> Result<Self, TrainerError> {
        let json = |name: &str| -> Result<serde_json::Value, TrainerError> {
            let path = dir.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => serde_json::from_slice(&bytes)
                    .map_err(|error| TrainerError::Tokenizer { path, problem: format!("not JSON: {error}") }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(serde_json::Value::Null),
                Err(error) => Err(TrainerError::Tokenizer { path, problem: error.to_string() }),
            }
        };
        let config = json("tokenizer_config.json")?;
        let map = json("special_tokens_map.json")?;
        let mut special = SpecialTokens::new();
        for name in ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"] {
            let text = |value: &serde_json::Value| {
                let token = value.get(name)?;
                token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
            };
            if let Some(text) = text(&config).or_else(|| text(&map)) {
                special.insert(name.to_owned(), text);
            }
        }
        let chat = match std::fs::read_to_string(dir.join("chat_template.jinja")) {
            Ok(template) => Some(template),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => in_config(&config["chat_template"]),
            Err(error) => {
                let path = dir.join("chat_template.jinja");
                return Err(TrainerError::Tokenizer { path, problem: error.to_string() });
            }
        };
        Ok(Self { special, chat })
    }
}

/// A template, or the one named "default" of a list of them.
fn in_config(value: &serde_json::Value) -> Option<String> {
    if let Some(template) = value.as_str() {
        return Some(template.to_owned());
    }
    let default = value.as_array()?.iter().find(|named| named["name"] == "default")?;
    default["template"].as_str().map(str::to_owned)
}
