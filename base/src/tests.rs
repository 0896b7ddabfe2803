use rondo_proto::Digest;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value as Json, json};

use super::*;
use crate::config::{ConfigValues, ModelConfig};
use crate::files::{CONFIG_FILE as CONFIG, TOKENIZER_FILE as TOKENIZER};
use crate::gguf::tests::Builder;

/// A BERT of two layers.
pub(crate) fn bert() -> Json {
    json!({"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 8, "max_position_embeddings": 16, "vocab_size": 5, "type_vocab_size": 2})
}

/// A Llama of one layer.
pub(crate) fn llama() -> Json {
    json!({"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 8, "max_position_embeddings": 16, "vocab_size": 5, "rms_norm_eps": 1e-5})
}

pub(crate) fn gpt2() -> Json {
    json!({"model_type": "gpt2", "n_embd": 4, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 5})
}

/// Name and shape of every tensor that a config asks for.
pub(crate) fn shapes(config: &Json) -> Vec<(String, Vec<usize>)> {
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
pub(crate) fn weights(path: &Path, shapes: &[(String, Vec<usize>)]) {
    let filled: Vec<_> = shapes.iter().map(|(name, shape)| (name.clone(), shape.clone(), 0)).collect();
    weights_of(path, &filled);
}

/// The same with a byte that each tensor is filled with.
pub(crate) fn weights_of(path: &Path, shapes: &[(String, Vec<usize>, u8)]) {
    let bytes = |shape: &[usize], fill: u8| vec![fill; shape.iter().product::<usize>() * 4];
    let data: Vec<Vec<u8>> = shapes.iter().map(|(_, shape, fill)| bytes(shape, *fill)).collect();
    let view = |shape: &[usize], data| TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
    let views = shapes.iter().zip(&data).map(|((name, shape, _), data)| (name.clone(), view(shape, data)));
    std::fs::write(path, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
}

/// A folder of a config, with the tensors' names under a prefix and more tensors beside them.
pub(crate) fn folder(dir: &Path, config: &Json, prefix: &str, more: &[(&str, &[usize])]) {
    std::fs::write(dir.join(CONFIG), config.to_string()).unwrap();
    std::fs::write(dir.join(TOKENIZER), "{}").unwrap();
    std::fs::write(dir.join("vocab.txt"), "not part of the digest").unwrap();
    let mut all = shapes(config);
    all.iter_mut().for_each(|(name, _)| *name = format!("{prefix}{name}"));
    all.extend(more.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())));
    weights(&dir.join("model.safetensors"), &all);
}

pub(crate) fn model(dir: &Path, prefix: &str) {
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
