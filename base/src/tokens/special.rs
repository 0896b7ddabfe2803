//! Special tokens, which several files may name.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{SettingsFile, quoted};
use crate::error::BaseError;

const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What a tokenizer class of transformers stands for when no file names a token.
struct Defaults {
    /// `tokenizer_class` without "Fast".
    classes: &'static [&'static str],
    /// Values of `model_type` that mean the class when no class is named.
    models: &'static [&'static str],
    tokens: &'static [(&'static str, &'static str)],
}

const DEFAULTS: [Defaults; 3] = [
    Defaults {
        classes: &["LlamaTokenizer", "CodeLlamaTokenizer"],
        models: &[],
        tokens: &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
    },
    Defaults {
        classes: &["GPT2Tokenizer"],
        models: &["gpt2"],
        tokens: &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")],
    },
    Defaults {
        classes: &["Qwen2Tokenizer"],
        models: &["qwen2", "qwen3"],
        tokens: &[("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")],
    },
];

/// The special tokens by name. special_tokens_map.json comes first, also where it says `null`; a
/// tokenizer_config.json with `added_tokens_decoder` is of a later format and stands alone.
pub(super) fn resolve(
    tokenizer: &SettingsFile,
    map: &SettingsFile,
    model: &SettingsFile,
    is_token: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, String>, BaseError> {
    let stands_alone = tokenizer.get("added_tokens_decoder").is_some_and(|tokens| !tokens.is_null());
    let files: &[&SettingsFile] = if stands_alone { &[tokenizer] } else { &[map, tokenizer] };
    let defaults = defaults(tokenizer, model)?;
    let mut special = BTreeMap::new();
    for name in NAMES {
        let said = files.iter().find_map(|file| Some((file, file.get(name)?)));
        let text = match said {
            Some((file, value)) => text(file, name, value)?,
            None => defaults.iter().find(|(of, text)| *of == name && is_token(text)).map(|(_, text)| *text),
        };
        if let Some(text) = text {
            special.insert(name.to_owned(), text.to_owned());
        }
    }
    Ok(special)
}

/// A token's text: written plainly, or as the `content` of an object.
fn text<'f>(file: &SettingsFile, name: &str, value: &'f Json) -> Result<Option<&'f str>, BaseError> {
    if value.is_null() {
        return Ok(None);
    }
    let text = value.as_str().or_else(|| value.get("content")?.as_str());
    let refuse = || {
        let value = quoted(value);
        file.refuse(format!("`{name}` is {value}; it is the text of a token, or an object with its `content`"))
    };
    text.map(Some).ok_or_else(refuse)
}

fn defaults(
    tokenizer: &SettingsFile,
    model: &SettingsFile,
) -> Result<&'static [(&'static str, &'static str)], BaseError> {
    let found = match tokenizer.get("tokenizer_class") {
        None | Some(Json::Null) => {
            let model = model.get("model_type").and_then(Json::as_str).unwrap_or_default();
            DEFAULTS.iter().find(|defaults| defaults.models.contains(&model))
        }
        Some(Json::String(class)) => {
            let class = class.strip_suffix("Fast").unwrap_or(class);
            DEFAULTS.iter().find(|defaults| defaults.classes.contains(&class))
        }
        Some(other) => {
            return Err(tokenizer.refuse(format!("`tokenizer_class` is {}; it is a name", quoted(other))));
        }
    };
    Ok(found.map_or(&[], |defaults| defaults.tokens))
}
