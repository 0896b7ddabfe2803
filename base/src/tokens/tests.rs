//! Golden values are of transformers 5: `tests/goldens/make_tokens.py`.

use std::fs;

use serde_json::json;

use super::*;

fn golden() -> Json {
    serde_json::from_str(include_str!("../../tests/goldens/tokens.json")).unwrap()
}

/// A folder with these files; texts are written as they are.
fn folder(files: &Json) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files.as_object().unwrap() {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn settings(files: &Json) -> Result<TokenSettings, BaseError> {
    TokenSettings::read(folder(files).path(), |_| true)
}

fn digest(files: &Json) -> String {
    token_digest(folder(files).path()).unwrap().unwrap().to_string()
}

#[test]
fn special_tokens_are_those_of_transformers_where_files_contradict() {
    let golden = golden();
    for (name, case) in golden["cases"].as_object().unwrap() {
        let found = settings(&case["files"]).unwrap().special;
        assert_eq!(json!(found), case["special"], "{name}");
    }
    // A class's token that the tokenizer does not have is none.
    let bare = folder(&json!({ "config.json": { "model_type": "gpt2" } }));
    assert!(TokenSettings::read(bare.path(), |_| false).unwrap().special.is_empty());
}

#[test]
fn every_id_that_a_file_calls_an_end_is_one() {
    let ends = |config: Json, generation: Json| {
        let files = json!({
            "config.json": { "eos_token_id": config }, "generation_config.json": { "eos_token_id": generation }
        });
        settings(&files).unwrap().ends.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(ends(json!(7), json!([21, 5])), [5, 7, 21]);
    assert_eq!(ends(json!([7, 8]), json!(null)), [7, 8]);
    assert_eq!(ends(json!(null), json!([])), [0_u32; 0]);
    assert!(settings(&json!({})).unwrap().ends.is_empty());
}

#[test]
fn what_is_of_the_wrong_kind_is_refused_by_file_and_key() {
    let wrong = [
        ("config.json", "eos_token_id", json!("2")),
        ("generation_config.json", "eos_token_id", json!([2, "x"])),
        ("generation_config.json", "eos_token_id", json!(-1)),
        ("generation_config.json", "eos_token_id", json!(2.5)),
        ("generation_config.json", "eos_token_id", json!(4_294_967_296_u64)),
        ("generation_config.json", "eos_token_id", json!({ "id": 2 })),
        ("tokenizer_config.json", "eos_token", json!(5)),
        ("tokenizer_config.json", "bos_token", json!({ "text": "<s>" })),
        ("tokenizer_config.json", "tokenizer_class", json!(["a"])),
        ("tokenizer_config.json", "chat_template", json!(7)),
        ("tokenizer_config.json", "chat_template", json!([{ "name": "default" }])),
        ("special_tokens_map.json", "eos_token", json!(["</s>"])),
    ];
    for (file, key, value) in wrong {
        let said = settings(&json!({ file: { key: value } })).unwrap_err().to_string();
        assert!(said.contains(file) && said.contains(&format!("`{key}`")), "{said}");
    }
    for file in ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"] {
        let said = settings(&json!({ file: ["a"] })).unwrap_err().to_string();
        assert!(said.contains(file) && said.contains("no JSON object"), "{said}");
    }
}

#[test]
fn a_chat_template_stands_in_a_file_of_its_own_or_in_the_config() {
    let template = |files: Json| settings(&files).unwrap().chat_template;
    let config = |value: Json| json!({ "tokenizer_config.json": { "chat_template": value } });
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(template(config(json!("a"))), some("a"));
    let named = json!([{ "name": "tool_use", "template": "t" }, { "name": "default", "template": "d" }]);
    assert_eq!(template(config(named)), some("d"));
    assert_eq!(template(config(json!({ "default": "d", "rag": "r" }))), some("d"));
    assert_eq!(template(config(json!([{ "name": "rag", "template": "r" }]))), None);
    assert_eq!(template(config(json!(null))), None);
    let both = json!({ "tokenizer_config.json": { "chat_template": "a" }, "chat_template.jinja": "file" });
    assert_eq!(template(both), some("file"));
}

#[test]
fn the_digest_is_of_the_meaning_and_not_of_the_bytes() {
    let golden = golden();
    let before = &golden["saved_again"]["before"];
    assert_ne!(before["tokenizer.json"], golden["saved_again"]["after"]["tokenizer.json"]);
    let same = digest(before);
    assert_eq!(digest(&golden["saved_again"]["after"]), same, "saved again by transformers");
    let with = |pointer: &str, value: Json| {
        let mut files = before.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        files.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
        digest(&files)
    };
    assert_eq!(with("/tokenizer.json/padding", json!({ "pad_id": 0 })), same);
    assert_eq!(with("/config.json/eos_token_id", json!([1, 3])), same, "3 is an end by another file");
    for (pointer, value) in [
        ("/tokenizer_config.json/chat_template", json!("other")),
        ("/chat_template.jinja", json!("other")),
        ("/tokenizer_config.json/bos_token", json!("</s>")),
        ("/special_tokens_map.json/eos_token", json!("</s>")),
        ("/generation_config.json/eos_token_id", json!([3, 1, 4])),
        ("/tokenizer.json/pre_tokenizer", json!({ "type": "WhitespaceSplit" })),
        ("/tokenizer.json/model/vocab/row", json!(77)),
        ("/tokenizer.json/model/unk_token", json!("row")),
    ] {
        assert_ne!(with(pointer, value), same, "{pointer}");
    }
}

#[test]
fn merges_and_defaults_are_the_same_however_they_are_written() {
    let bpe = |merges: Json, more: Json| {
        let mut model = json!({ "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": merges });
        model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        digest(&json!({ "config.json": {}, "tokenizer.json": { "model": model } }))
    };
    let short = bpe(json!(["a b"]), json!({}));
    let defaults = json!({
        "dropout": null, "continuing_subword_prefix": "", "end_of_word_suffix": null, "fuse_unk": false,
        "byte_fallback": false, "ignore_merges": false,
    });
    assert_eq!(bpe(json!([["a", "b"]]), defaults), short);
    assert_ne!(bpe(json!(["a b"]), json!({ "ignore_merges": true })), short);
    assert_ne!(bpe(json!([]), json!({})), short);
}

#[test]
fn damaged_files_never_panic() {
    let golden = golden();
    let files = &golden["saved_again"]["before"];
    let names = ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json"];
    let dir = folder(files);
    // A linear congruential generator: the same damage every time.
    let mut state = 12_u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for name in names {
        let whole = files[name].to_string().into_bytes();
        let (mut read, mut refused) = (0, 0);
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..=draw(3) {
                let at = draw(bytes.len());
                match draw(4) {
                    0 => bytes[at] = draw(256) as u8,
                    1 => drop(bytes.drain(at..(at + draw(9)).min(bytes.len() - 1).max(at))),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes[at] = b"\"{}[],:-0en"[draw(11)],
                }
            }
            fs::write(dir.path().join(name), bytes).unwrap();
            match token_digest(dir.path()) {
                Ok(_) => read += 1,
                Err(error) => {
                    assert!(error.to_string().contains(name), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(read > 0 && refused > 0, "{name}: {read} read, {refused} refused");
        fs::write(dir.path().join(name), whole).unwrap();
    }
}
