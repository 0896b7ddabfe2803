//! What a model's folder says of its tokens beside the tokenizer itself: special tokens, the chat
//! template, and which tokens end a text. Files may contradict each other; this is what
//! transformers 5 makes of them.

mod chat_template;
mod digest;
mod ends;
mod special;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::error::BaseError;
use crate::files::CONFIG_FILE;
use crate::json::read_json;

pub use digest::token_digest;

/// Special tokens and the name of the tokenizer's class.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Special tokens, as older programs write them.
const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
/// How the model is meant to generate.
const GENERATION_CONFIG: &str = "generation_config.json";

/// What the files beside tokenizer.json say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenSettings {
    /// Special tokens by name, for example `eos_token` = `</s>`.
    pub special: BTreeMap<String, String>,
    /// The source of the chat template.
    pub chat_template: Option<String>,
    /// The ids that config.json and generation_config.json call an end of a text.
    pub ends: BTreeSet<u32>,
}

impl TokenSettings {
    /// Reads the files of a folder; each may be absent. `is_token` says whether the tokenizer has a
    /// token: a token that no file names, and that only the tokenizer's class stands for, counts
    /// where it is there.
    ///
    /// # Errors
    /// A file cannot be read or is no JSON object; a special token is no text, an end is no id, a
    /// chat template is neither a text nor a list of named ones.
    pub fn read(dir: &Path, is_token: impl Fn(&str) -> bool) -> Result<Self, BaseError> {
        let config = SettingsFile::read(dir, CONFIG_FILE)?;
        let generation = SettingsFile::read(dir, GENERATION_CONFIG)?;
        let tokenizer = SettingsFile::read(dir, TOKENIZER_CONFIG)?;
        let map = SettingsFile::read(dir, SPECIAL_TOKENS_MAP)?;
        let mut ends = ends::of(&config)?;
        ends.extend(ends::of(&generation)?);
        Ok(Self {
            special: special::resolve(&tokenizer, &map, &config, is_token)?,
            chat_template: chat_template::find(dir, &tokenizer)?,
            ends,
        })
    }
}

/// A JSON object in a file of the folder; empty where the file is absent.
struct SettingsFile {
    path: PathBuf,
    json: Json,
}

impl SettingsFile {
    fn read(dir: &Path, name: &str) -> Result<Self, BaseError> {
        let path = dir.join(name);
        // A link that leads nowhere is a damaged folder, not an absent file.
        if std::fs::symlink_metadata(&path).is_err() {
            return Ok(Self { path, json: Json::Null });
        }
        let json = read_json(&path)?;
        if !json.is_object() {
            return Err(BaseError::Config { path, problem: "is no JSON object".to_owned() });
        }
        Ok(Self { path, json })
    }

    /// A value, `null` included.
    fn get(&self, key: &str) -> Option<&Json> {
        self.json.get(key)
    }

    fn refuse(&self, problem: String) -> BaseError {
        BaseError::Config { path: self.path.clone(), problem }
    }
}

/// A value as a message quotes it.
fn quoted(value: &Json) -> String {
    const QUOTED: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
