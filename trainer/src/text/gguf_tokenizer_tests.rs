use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rondo_base::gguf;
use serde::Deserialize;

use super::*;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gguf")
}

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    /// By file: ids of each text, special tokens included.
    ids: BTreeMap<String, Vec<Vec<u32>>>,
}

/// Ids by other implementations: transformers' converters for the byte-level kinds, SentencePiece's
/// algorithm written out in Python for the scored one (tests/goldens/make_gguf.py).
#[test]
fn ids_are_those_of_the_references() {
    let golden: Golden = serde_json::from_slice(&std::fs::read(goldens().join("tokens.json")).unwrap()).unwrap();
    assert_eq!(golden.ids.len(), 5);
    for (file, expected) in &golden.ids {
        let header = gguf::read(&goldens().join(file)).unwrap();
        let tokenizer = load(&header).unwrap();
        for (text, expected) in golden.texts.iter().zip(expected) {
            let found = tokenizer.encode(text.as_str(), true).unwrap();
            assert_eq!(found.get_ids(), expected, "{file}: {text:?} became {:?}", found.get_tokens());
        }
        // Decoding gives the text back, but for what the kinds change: NFC, and SentencePiece's
        // sign for a space.
        for text in golden.texts.iter().filter(|text| !text.contains("<|") && !text.contains(['\u{301}', '\u{2581}'])) {
            let ids = tokenizer.encode(text.as_str(), false).unwrap();
            assert_eq!(&tokenizer.decode(ids.get_ids(), false).unwrap(), text, "{file}");
        }
    }
}

#[test]
fn facts_are_read() {
    let read = |file: &str| facts(&gguf::read(&goldens().join(file)).unwrap()).unwrap();
    let llama3 = read("llama-bpe.gguf");
    assert!(llama3.add_bos && !llama3.add_eos, "its kind adds the start unless the file says otherwise");
    assert_eq!((llama3.bos, llama3.eos, llama3.bos_text.as_deref()), (Some(0), Some(1), Some("<|begin|>")));
    assert_eq!(llama3.chat_template.as_deref(), Some("{{ messages }}"));
    assert!(!read("smollm.gguf").add_bos);
    let scored = read("scored.gguf");
    assert!(scored.add_bos && scored.add_eos);
    assert_eq!(scored.eos_text.as_deref(), Some("</s>"));
}

#[test]
fn a_turn_and_a_message_have_ends_of_their_own() {
    let mut header = gguf::read(&goldens().join("llama-bpe.gguf")).unwrap();
    assert_eq!(facts(&header).unwrap().ends, [1]);
    for (key, id) in [("eot", 3), ("eom", u64::from(u32::MAX))] {
        header.metadata.insert(format!("tokenizer.ggml.{key}_token_id"), gguf::Value::Unsigned(id));
    }
    assert_eq!(facts(&header).unwrap().ends, [1, 3], "a number beyond every id is none");
}

#[test]
fn what_cannot_be_read_is_named() {
    let header = gguf::read(&goldens().join("smollm.gguf")).unwrap();
    let refused = |change: &dyn Fn(&mut gguf::Header)| {
        let mut header = header.clone();
        change(&mut header);
        load(&header).map(|_| ()).unwrap_err().to_string()
    };
    let put = |key: &'static str, value: gguf::Value| {
        move |header: &mut gguf::Header| {
            header.metadata.insert(key.to_owned(), value.clone());
        }
    };
    let text = |text: &str| gguf::Value::Text(text.to_owned());
    let texts = |texts: &[&str]| gguf::Value::Array(gguf::Array::Text(texts.iter().map(|&t| t.to_owned()).collect()));
    for (change, says) in [
        (put("tokenizer.ggml.pre", text("viking")), "tokenizer.ggml.pre is \"viking\"; supported are: default, gpt-2"),
        (put("tokenizer.ggml.model", text("bert")), "tokenizer.ggml.model is \"bert\"; supported are \"gpt2\" and"),
        (put("tokenizer.ggml.model", text("llama")), "tokenizer.ggml.scores is absent"),
        (put("tokenizer.ggml.tokens", texts(&["a", "a"])), "token \"a\" comes twice"),
        (put("tokenizer.ggml.tokens", texts(&["a", "b"])), "tokenizer.ggml.token_type is an array of"),
        (put("tokenizer.ggml.merges", texts(&["ab"])), "merge \"ab\" is not of two tokens"),
        (put("tokenizer.ggml.merges", texts(&["e nosuchtoken"])), "merge \"e nosuchtoken\""),
        (put("tokenizer.ggml.eos_token_id", gguf::Value::Unsigned(70_000)), "eos_token_id is 70000"),
    ] {
        let error = refused(&change);
        assert!(error.contains(says) && error.contains("smollm.gguf"), "{error:?} should contain {says:?}");
    }
    let error = refused(&|header| drop(header.metadata.remove("tokenizer.ggml.model")));
    assert!(error.contains("it brings no tokenizer"), "{error}");
}

/// The published file, where a path to it is given: RONDO_GGUF, and RONDO_GGUF_IDS with texts and
/// ids by transformers (`make_gguf.py FILE.gguf` writes them).
#[test]
#[ignore = "needs a downloaded model"]
fn a_published_file_gives_the_ids_of_transformers() {
    let variable = |name: &str| PathBuf::from(std::env::var(name).unwrap());
    let header = gguf::read(&variable("RONDO_GGUF")).unwrap();
    let tokenizer = load(&header).unwrap();
    let golden: Golden = serde_json::from_slice(&std::fs::read(variable("RONDO_GGUF_IDS")).unwrap()).unwrap();
    let expected = golden.ids.values().next().unwrap();
    for (text, expected) in golden.texts.iter().zip(expected) {
        assert_eq!(tokenizer.encode(text.as_str(), true).unwrap().get_ids(), expected, "{text:?}");
    }
    assert!(facts(&header).unwrap().chat_template.is_some());
}
