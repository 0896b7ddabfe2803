use std::path::Path;

use serde_json::{Value as Json, json};

use super::Checkpoint;
use crate::files::{CONFIG_FILE as CONFIG, TOKENIZER_FILE as TOKENIZER};
use crate::index::INDEX_FILE;
use crate::tests::{bert, folder, gpt2, llama, model, shapes, weights, weights_of};
use crate::{check, describe};

/// A Llama in two files and their index, which misplaces nothing.
fn sharded(dir: &Path, prefix: &str) -> Json {
    std::fs::write(dir.join(CONFIG), llama().to_string()).unwrap();
    std::fs::write(dir.join(TOKENIZER), "{}").unwrap();
    let mut all = shapes(&llama());
    all.iter_mut().for_each(|(name, _)| *name = name.replacen("model.", prefix, 1));
    let mut places = serde_json::Map::new();
    for (number, part) in all.chunks(all.len().div_ceil(2)).enumerate() {
        let file = format!("model-0000{}-of-00002.safetensors", number + 1);
        weights(&dir.join(&file), part);
        places.extend(part.iter().map(|(name, _)| (name.clone(), file.clone().into())));
    }
    Json::Object(places)
}

fn write_index(dir: &Path, places: &Json) {
    std::fs::write(dir.join(INDEX_FILE), json!({"weight_map": places}).to_string()).unwrap();
}

/// The remark on a model that can be opened.
fn remark(dir: &Path) -> String {
    Checkpoint::open(dir).unwrap().remark().unwrap_or_default()
}

#[test]
fn shards_are_one_model_with_and_without_an_index() {
    for prefix in ["", "model."] {
        let dir = tempfile::tempdir().unwrap();
        let places = sharded(dir.path(), prefix);
        let base = describe(dir.path(), "l").unwrap();
        assert_eq!((base.linears.len(), base.files.len()), (7, 4));
        assert_eq!(base.linears[0].name, "model.layers.0.self_attn.q_proj");
        assert_eq!(base.parameters, 7 * 64 + 3 * 8 + 2 * 40);
        write_index(dir.path(), &places);
        assert_eq!(describe(dir.path(), "l").unwrap(), base, "the index is no part of the digest");
    }
    let dir = tempfile::tempdir().unwrap();
    sharded(dir.path(), "model.");
    std::fs::copy(dir.path().join("model-00001-of-00002.safetensors"), dir.path().join("x.safetensors")).unwrap();
    let error = describe(dir.path(), "l").unwrap_err().to_string();
    assert!(error.contains("keep one copy of the weights"), "{error}");
    std::fs::remove_file(dir.path().join("x.safetensors")).unwrap();
    std::fs::remove_file(dir.path().join("model-00001-of-00002.safetensors")).unwrap();
    let error = describe(dir.path(), "l").unwrap_err().to_string();
    assert!(error.contains("lack model-00001-of-00002.safetensors"), "{error}");
}

#[test]
fn an_index_decides_which_files_count() {
    let dir = tempfile::tempdir().unwrap();
    let places = sharded(dir.path(), "model.");
    write_index(dir.path(), &places);
    let base = describe(dir.path(), "l").unwrap();
    assert_eq!(remark(dir.path()), "");
    // Copies in other layouts, whole copies, even broken ones.
    for stray in ["consolidated.safetensors", "model.safetensors", "model-00003-of-00003.safetensors"] {
        std::fs::write(dir.path().join(stray), "no weights at all").unwrap();
    }
    assert_eq!(describe(dir.path(), "l").unwrap(), base);
    check(dir.path(), &base).unwrap();
    let line = remark(dir.path());
    let names = "consolidated.safetensors, model-00003-of-00003.safetensors, model.safetensors";
    assert!(line.contains(names) && line.contains(INDEX_FILE) && !line.contains('\n'), "{line}");

    let with = |tensor: &str, file: Json| {
        let mut changed = places.clone();
        changed[tensor] = file;
        write_index(dir.path(), &changed);
        describe(dir.path(), "l").unwrap_err().to_string()
    };
    let error = with("lm_head.weight", "model-00001-of-00002.safetensors".into());
    assert!(error.contains("\"lm_head.weight\" in \"model-00001-of-00002.safetensors\", which does not"), "{error}");
    let error = with("more", "model-00001-of-00002.safetensors".into());
    assert!(error.contains("places tensor \"more\""), "{error}");
    let error = with("lm_head.weight", "model-00009-of-00009.safetensors".into());
    assert!(error.contains("lack model-00009-of-00009.safetensors"), "{error}");
    for place in ["../x.safetensors", "/x.safetensors", "a/b.safetensors", "a\\b.safetensors", "model.bin", "", ".."] {
        let error = with("lm_head.weight", place.into());
        assert!(error.contains("\"lm_head.weight\"") && error.contains("no .safetensors file beside it"), "{error}");
    }
    assert!(with("lm_head.weight", json!(7)).contains("in 7, which is no .safetensors"));
    for (content, says) in [
        ("[]", "no object under \"weight_map\""),
        (r#"{"weight_map": []}"#, "no object under \"weight_map\""),
        (r#"{"weight_map": {}}"#, "names no tensor"),
        ("", "index.json: is empty"),
        ("version https://git-lfs.github.com/spec/v1\noid", "index.json: is a Git LFS pointer"),
    ] {
        std::fs::write(dir.path().join(INDEX_FILE), content).unwrap();
        let error = describe(dir.path(), "l").unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn leftover_heads_are_passed_over_and_named() {
    for (config, prefix, heads) in [
        (llama(), "", &["score.weight", "qa_outputs.bias", "v_head.summary.weight", "classifier.weight"][..]),
        (gpt2(), "transformer.", &["score.weight", "multiple_choice_head.summary.weight"]),
        (
            bert(),
            "bert.",
            &["bert.pooler.dense.weight", "cls.predictions.bias", "classifier.weight", "qa_outputs.bias"],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        folder(dir.path(), &config, prefix, &[]);
        let bare = describe(dir.path(), "x").unwrap();
        let more: Vec<(&str, &[usize])> = heads.iter().map(|head| (*head, &[2, 4][..])).collect();
        folder(dir.path(), &config, prefix, &more);
        let with = describe(dir.path(), "x").unwrap();
        assert_eq!((with.parameters, with.linears), (bare.parameters, bare.linears));
        let line = remark(dir.path());
        assert!(heads.iter().all(|head| line.contains(head.trim_start_matches("bert."))), "{line}");
        let other: (&str, &[usize]) = ("model.layers.0.mlp.experts.0.weight", &[1]);
        folder(dir.path(), &config, prefix, &[other, ("score.weight", &[1])]);
        let error = describe(dir.path(), "x").unwrap_err().to_string();
        assert!(error.contains("does not have: ") && error.contains("mlp.experts.0.weight"), "{error}");
    }
}

#[test]
fn a_tied_vocabulary_matrix_is_the_files_own_where_it_differs() {
    for (mut config, words) in [(llama(), "model.embed_tokens.weight"), (gpt2(), "wte.weight")] {
        config["tie_word_embeddings"] = true.into();
        let dir = tempfile::tempdir().unwrap();
        folder(dir.path(), &config, "", &[]);
        let shared = describe(dir.path(), "x").unwrap().parameters;
        let with_head = |fill: u8, alone: bool| {
            let mut all: Vec<_> = shapes(&config).into_iter().map(|(name, shape)| (name, shape, 0)).collect();
            let shape = all.iter().find(|(name, ..)| name == words).unwrap().1.clone();
            all.retain(|(name, ..)| !alone || name != words);
            all.push(("lm_head.weight".to_owned(), shape, fill));
            weights_of(&dir.path().join("model.safetensors"), &all);
            Checkpoint::open(dir.path()).unwrap()
        };
        let own = with_head(1, false);
        assert!(own.has_own_head && own.remark().unwrap().contains("lm_head.weight"));
        let words_numbers = own.tensors.iter().find(|tensor| tensor.name == words).unwrap().numbers();
        assert_eq!(own.parameters(), shared + words_numbers);
        for same in [with_head(0, false), with_head(1, true)] {
            assert_eq!((same.has_own_head, same.remark(), same.parameters()), (false, None, shared));
        }
    }
}

#[test]
fn pointers_and_empty_files_are_named() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    for file in [CONFIG, TOKENIZER, "model.safetensors"] {
        let dir = tempfile::tempdir().unwrap();
        model(dir.path(), "");
        for (content, says) in [(pointer, "is a Git LFS pointer"), ("", "is empty")] {
            std::fs::write(dir.path().join(file), content).unwrap();
            let loaded = Checkpoint::open(dir.path()).unwrap_err().to_string();
            for error in [describe(dir.path(), "x").unwrap_err().to_string(), loaded] {
                assert!(error.contains(file) && error.contains(says), "{error}");
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, pointer).unwrap();
    let error = describe(&path, "x").unwrap_err().to_string();
    assert!(error.contains("m.gguf: it is a Git LFS pointer") && error.contains("git lfs pull"), "{error}");
    std::fs::write(&path, "").unwrap();
    assert!(describe(&path, "x").unwrap_err().to_string().contains("m.gguf: it is empty"));
}
