use rondo_proto::Digest;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value as Json, json};

use super::*;
use crate::config::{ConfigValues, ModelConfig};
use crate::files::{CONFIG_FILE as CONFIG, TOKENIZER_FILE as TOKENIZER};
use crate::gguf::tests::Builder;

/// A BERT of two layers.
fn bert() -> Json {
    json!({"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 8, "max_position_embeddings": 16, "vocab_size": 5, "type_vocab_size": 2})
}

/// A Llama of one layer.
pub(crate) fn llama() -> Json {
    json!({"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 8, "max_position_embeddings": 16, "vocab_size": 5, "rms_norm_eps": 1e-5})
}

fn gpt2() -> Json {
    json!({"model_type": "gpt2", "n_embd": 4, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 5})
}

/// Name and shape of every tensor that a config asks for.
fn shapes(config: &Json) -> Vec<(String, Vec<usize>)> {
    let config = ModelConfig::read(&ConfigValues::of(Path::new(CONFIG), config.clone()).unwrap()).unwrap();
    let mut all = Vec::new();
    tensors::visit(&config, &mut |name, shape| {
        all.push((name.to_owned(), shape.to_vec()));
        Ok(())
    })
    .unwrap();
    all
}

/// Zero weights of the given shapes, as a .safetensors file.
fn weights(path: &Path, shapes: &[(String, Vec<usize>)]) {
    let filled: Vec<_> = shapes.iter().map(|(name, shape)| (name.clone(), shape.clone(), 0)).collect();
    weights_of(path, &filled);
}

/// The same with a byte that each tensor is filled with.
fn weights_of(path: &Path, shapes: &[(String, Vec<usize>, u8)]) {
    let bytes = |shape: &[usize], fill: u8| vec![fill; shape.iter().product::<usize>() * 4];
    let data: Vec<Vec<u8>> = shapes.iter().map(|(_, shape, fill)| bytes(shape, *fill)).collect();
    let view = |shape: &[usize], data| TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
    let views = shapes.iter().zip(&data).map(|((name, shape, _), data)| (name.clone(), view(shape, data)));
    std::fs::write(path, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
}

/// A folder of a config, with the tensors' names under a prefix and more tensors beside them.
fn folder(dir: &Path, config: &Json, prefix: &str, more: &[(&str, &[usize])]) {
    std::fs::write(dir.join(CONFIG), config.to_string()).unwrap();
    std::fs::write(dir.join(TOKENIZER), "{}").unwrap();
    std::fs::write(dir.join("vocab.txt"), "not part of the digest").unwrap();
    let mut all = shapes(config);
    all.iter_mut().for_each(|(name, _)| *name = format!("{prefix}{name}"));
    all.extend(more.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())));
    weights(&dir.join("model.safetensors"), &all);
}

fn model(dir: &Path, prefix: &str) {
    folder(dir, &bert(), prefix, &[]);
}

fn described(prefix: &str) -> (tempfile::TempDir, v1::BaseModel) {
    let dir = tempfile::tempdir().unwrap();
    model(dir.path(), prefix);
    let base = describe(dir.path(), "tiny").unwrap();
    (dir, base)
}

#[test]
fn a_model_is_described_from_config_and_headers() {
    for prefix in ["", "bert."] {
        let (dir, base) = described(prefix);
        assert_eq!((base.name.as_str(), base.architecture.as_str()), ("tiny", "bert"));
        assert_eq!((base.hidden_size, base.max_positions), (4, 16));
        assert_eq!(base.linears.len(), 12);
        let first = v1::LinearLayer {
            name: "encoder.layer.0.attention.self.query".to_owned(),
            out_features: 4,
            in_features: 4,
        };
        assert_eq!(base.linears[0], first);
        assert_eq!((base.linears[10].out_features, base.linears[10].in_features), (8, 4));
        assert_eq!(base.parameters, 2 * (4 * 16 + 2 * 32 + 28 + 16) + 20 + 64 + 8 + 8);
        let names: Vec<&str> = base.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
        check(dir.path(), &base).unwrap();
    }
}

#[test]
fn the_digest_is_over_names_and_digests() {
    let (dir, base) = described("");
    let line = |name: &str| format!("{name}\0{}\n", Digest::of_file(&dir.path().join(name)).unwrap());
    let text = format!("{}{}{}", line("config.json"), line("model.safetensors"), line("tokenizer.json"));
    assert_eq!(base.digest, Digest::of(text.as_bytes()).to_string());
}

#[test]
fn check_names_the_file_that_differs() {
    let (dir, base) = described("");
    std::fs::write(dir.path().join(TOKENIZER), "[]").unwrap();
    let error = check(dir.path(), &base).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json has digest blake3:"), "{error}");
    std::fs::write(dir.path().join(TOKENIZER), "[ ]").unwrap();
    let error = check(dir.path(), &base).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json has 3 bytes, expected 2"), "{error}");
    std::fs::write(dir.path().join(TOKENIZER), "{}").unwrap();
    // Beside model.safetensors no other file counts.
    std::fs::write(dir.path().join("more.safetensors"), "").unwrap();
    check(dir.path(), &base).unwrap();
    let mut older = base.clone();
    older.files.push(v1::BaseFile { name: "more.safetensors".to_owned(), ..Default::default() });
    let error = check(dir.path(), &older).unwrap_err().to_string();
    assert!(error.contains("more.safetensors counts in the registered base") && error.contains("again"), "{error}");
}

#[test]
fn heads_and_adapters_beside_the_weights_are_no_part_of_a_base() {
    let (dir, base) = described("");
    let tensor = TensorView::new(Dtype::F32, vec![2, 4], &[0; 32]).unwrap();
    for file in [HEAD_FILE, ADAPTER_FILE] {
        let bytes = safetensors::serialize([("head.weight", tensor.clone())], None).unwrap();
        std::fs::write(dir.path().join(file), bytes).unwrap();
    }
    check(dir.path(), &base).unwrap();
    assert_eq!(describe(dir.path(), "tiny").unwrap(), base);
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let error = describe(dir.path(), "tiny").unwrap_err().to_string();
    assert!(error.contains("holds no *.safetensors"), "{error}");
}

#[test]
fn what_is_missing_or_unsupported_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = || describe(dir.path(), "x").unwrap_err().to_string();
    assert!(error().contains("holds no config.json"), "{}", error());
    model(dir.path(), "");
    std::fs::write(dir.path().join(CONFIG), r#"{"model_type": "mamba"}"#).unwrap();
    assert!(error().contains("`model_type` is \"mamba\"; supported: \"bert\", \"roberta\""), "{}", error());
    std::fs::write(dir.path().join(CONFIG), "{").unwrap();
    assert!(error().contains("not valid JSON"), "{}", error());
    let mut deeper = bert();
    deeper["num_hidden_layers"] = 3.into();
    std::fs::write(dir.path().join(CONFIG), deeper.to_string()).unwrap();
    assert!(error().contains("lack the tensor \"encoder.layer.2."), "{}", error());
}

#[test]
fn targets_match_by_dotted_suffix() {
    let (_dir, base) = described("");
    let find = |patterns: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        find_targets(&base, &patterns).map(|found| found.into_iter().map(|linear| linear.name).collect::<Vec<_>>())
    };
    let queries = ["encoder.layer.0.attention.self.query", "encoder.layer.1.attention.self.query"];
    assert_eq!(find(&["query"]).unwrap(), queries);
    assert_eq!(find(&["self.query", "query"]).unwrap(), queries);
    assert_eq!(find(&["encoder.layer.1.attention.self.query"]).unwrap(), queries[1..]);
    assert_eq!(find(&["dense"]).unwrap().len(), 6);
    assert_eq!(find(&["all-linear"]).unwrap().len(), base.linears.len());
    assert_eq!(find(&["query", "All-Linear"]).unwrap().len(), base.linears.len());
    assert_eq!(find(&["attention.output.dense"]).unwrap().len(), 2);
    let error = find(&["query", "querry"]).unwrap_err().to_string();
    assert!(error.contains("did you mean \"query\"?"), "{error}");
    assert!(error.contains("there are: attention.self.query, attention.self.key"), "{error}");
    assert!(find(&["uery"]).is_err() && find(&[""]).is_err());
}

/// Name, output and input size of every layer.
fn layers(base: &v1::BaseModel) -> Vec<(&str, u32, u32)> {
    base.linears.iter().map(|linear| (linear.name.as_str(), linear.out_features, linear.in_features)).collect()
}

#[test]
fn weights_of_gpt2_lie_the_other_way_round() {
    for prefix in ["", "transformer."] {
        let dir = tempfile::tempdir().unwrap();
        folder(dir.path(), &gpt2(), prefix, &[(&format!("{prefix}h.0.attn.bias"), &[1, 1, 16, 16])]);
        let base = describe(dir.path(), "g").unwrap();
        let expected =
            [("h.0.attn.c_attn", 12, 4), ("h.0.attn.c_proj", 4, 4), ("h.0.mlp.c_fc", 16, 4), ("h.0.mlp.c_proj", 4, 16)];
        assert_eq!(layers(&base), expected);
        assert_eq!((base.hidden_size, base.max_positions), (4, 16));
    }
}

#[test]
fn roberta_counts_positions_after_the_padding() {
    let (dir, _) = described("");
    for (kind, positions) in [("roberta", Some(14)), ("xlm-roberta", Some(14)), ("bert", Some(16))] {
        let config = std::fs::read_to_string(dir.path().join(CONFIG)).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        config["model_type"] = kind.into();
        std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
        assert_eq!(describe(dir.path(), "r").ok().map(|base| base.max_positions), positions, "{kind}");
        config["max_position_embeddings"] = 2.into();
        if kind == "roberta" {
            std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
            assert!(describe(dir.path(), "r").unwrap_err().to_string().contains("is only 2"));
            config["max_position_embeddings"] = 16.into();
            std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
        }
    }
}

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

#[test]
fn a_gguf_file_is_a_base() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.Q4_0.gguf");
    std::fs::write(&path, Builder::llama().bytes()).unwrap();
    std::fs::write(dir.path().join("other.gguf"), "not part of it").unwrap();
    let base = describe(&path, "tiny").unwrap();
    assert_eq!((base.architecture.as_str(), base.hidden_size, base.max_positions), ("llama", 64, 128));
    assert_eq!(base.parameters, 640 + 64 + 2 * (2 * 64 * 64 + 5 * 32 * 64 + 2 * 64));
    assert_eq!(layers(&base)[1], ("model.layers.0.self_attn.k_proj", 32, 64));
    assert_eq!(base.linears.len(), 14);
    let line = format!("tiny.Q4_0.gguf\0{}\n", Digest::of_file(&path).unwrap());
    assert_eq!(base.digest, Digest::of(line.as_bytes()).to_string());
    check(&path, &base).unwrap();

    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(check(&path, &base).unwrap_err().to_string().contains("tiny.Q4_0.gguf has digest"));
    let error = check(&dir.path().join("other.gguf"), &base).unwrap_err().to_string();
    assert!(error.contains("tiny.Q4_0.gguf is missing"), "{error}");
    assert!(describe(&dir.path().join("none.gguf"), "x").unwrap_err().to_string().contains("none.gguf"));
    for (builder, says) in [
        (Builder::llama().without("blk.1.attn_q.weight"), "lack the tensor \"model.layers.1.self_attn.q_proj.weight\""),
        (Builder::llama().number("llama.block_count", 3), "lack the tensor \"model.layers.2."),
        (Builder::llama().tensor("blk.0.ssm_in.weight", &[32], 0), "does not have: blk.0.ssm_in.weight"),
        (Builder::llama().number("llama.feed_forward_length", 64), "has shape [32, 64], config.json asks for [64, 64]"),
    ] {
        std::fs::write(&path, builder.bytes()).unwrap();
        let error = describe(&path, "x").unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
