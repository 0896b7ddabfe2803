//! A digest of what makes tokens: two folders with the same one turn a text into the same tokens.
//!
//! It is taken over what the files mean and not over their bytes, so that a folder which
//! transformers has read and saved again keeps it.

use std::collections::BTreeMap;
use std::path::Path;

use rondo_proto::Digest;
use serde_json::{Value as Json, json};

use super::TokenSettings;
use crate::error::BaseError;
use crate::files::{TOKENIZER_FILE, is_gguf};
use crate::json::read_json_up_to;

/// Largest tokenizer.json that is read; those of vocabularies of 256 000 tokens have 33 MB.
const MAX_BYTES: u64 = 256 << 20;

/// The digest of a folder's tokenizer, special tokens, chat template and ends of texts. `None` for
/// a .gguf file: its tokens are part of the one file, whose digest says all.
///
/// # Errors
/// As of [`TokenSettings::read`]; tokenizer.json cannot be read or is no tokenizer.
pub fn token_digest(path: &Path) -> Result<Option<Digest>, BaseError> {
    if is_gguf(path) {
        return Ok(None);
    }
    let file = path.join(TOKENIZER_FILE);
    let mut tokenizer = read_json_up_to(&file, MAX_BYTES)?;
    let ids = Ids::of(&tokenizer);
    let settings = TokenSettings::read(path, |text| ids.get(text).is_some())?;
    let mut ends: Vec<u64> = settings.ends.iter().copied().map(u64::from).collect();
    ends.extend(settings.special.get("eos_token").and_then(|text| ids.get(text)));
    ends.sort_unstable();
    ends.dedup();
    drop(ids);
    let Some(parts) = tokenizer.as_object_mut() else {
        return Err(BaseError::Config { path: file, problem: "is no JSON object".to_owned() });
    };
    // Rondo pads and cuts by itself, whatever the file says.
    for of_no_matter in ["padding", "truncation", "version"] {
        parts.remove(of_no_matter);
    }
    let post = parts.get_mut("post_processor");
    if post.is_some_and(says_nothing) {
        parts.remove("post_processor");
    }
    if let Some(Json::Array(added)) = parts.get_mut("added_tokens") {
        added.sort_by_key(|token| token.get("id").and_then(Json::as_u64));
    }
    if let Some(model) = parts.get_mut("model").and_then(Json::as_object_mut) {
        if let Some(Json::Array(merges)) = model.get_mut("merges") {
            merges.iter_mut().for_each(split_merge);
        }
        // Later programs write out what earlier ones left to the default.
        let flags = ["fuse_unk", "byte_fallback", "ignore_merges"];
        model.retain(|key, value| !(flags.contains(&key.as_str()) && *value == Json::Bool(false)));
        let affixes = ["continuing_subword_prefix", "end_of_word_suffix"];
        if model.get("type").and_then(Json::as_str) == Some("BPE") {
            model.retain(|key, value| !(affixes.contains(&key.as_str()) && value.as_str() == Some("")));
        }
    }
    let mut text = String::new();
    let settings = json!({ "special": settings.special, "chat_template": settings.chat_template, "ends": ends });
    canonical(&settings, &mut text);
    canonical(&tokenizer, &mut text);
    Ok(Some(Digest::of(text.as_bytes())))
}

/// Takes pairs of texts, which Rondo never encodes, out of a post-processor. Answers whether nothing
/// is left: transformers writes a template of the text alone where there was no post-processor.
fn says_nothing(post: &mut Json) -> bool {
    if post.get("type").and_then(Json::as_str) != Some("TemplateProcessing") {
        return post.is_null();
    }
    if let Some(post) = post.as_object_mut() {
        post.remove("pair");
    }
    post.get("single") == Some(&json!([{ "Sequence": { "id": "A", "type_id": 0 } }]))
}

/// A merge written as "a b", as two texts.
fn split_merge(merge: &mut Json) {
    if let Some((left, right)) = merge.as_str().and_then(|text| text.split_once(' ')) {
        *merge = json!([left, right]);
    }
}

/// Writes a value with its keys in order, and without those that are `null`.
fn canonical(value: &Json, out: &mut String) {
    match value {
        Json::Object(entries) => {
            let mut entries: Vec<(&String, &Json)> = entries.iter().filter(|(_, value)| !value.is_null()).collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in entries {
                out.push_str(&Json::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Json::Array(values) => {
            out.push('[');
            for value in values {
                canonical(value, out);
                out.push(',');
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

/// Ids by the tokens' texts.
struct Ids<'t>(BTreeMap<&'t str, u64>);

impl<'t> Ids<'t> {
    fn of(tokenizer: &'t Json) -> Self {
        let mut ids = BTreeMap::new();
        match tokenizer.get("model").and_then(|model| model.get("vocab")) {
            Some(Json::Object(vocab)) => {
                ids.extend(vocab.iter().filter_map(|(text, id)| Some((text.as_str(), id.as_u64()?))));
            }
            // A vocabulary with scores: pairs, in the order of the ids.
            Some(Json::Array(vocab)) => {
                let texts = vocab.iter().zip(0..).filter_map(|(pair, id)| Some((pair.get(0)?.as_str()?, id)));
                ids.extend(texts);
            }
            _ => {}
        }
        if let Some(Json::Array(added)) = tokenizer.get("added_tokens") {
            let entry = |token: &'t Json| Some((token.get("content")?.as_str()?, token.get("id")?.as_u64()?));
            ids.extend(added.iter().filter_map(entry));
        }
        Self(ids)
    }

    fn get(&self, text: &str) -> Option<u64> {
        self.0.get(text).copied()
    }
}
