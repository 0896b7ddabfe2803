use rondo_proto::Digest;
use safetensors::tensor::{Dtype, TensorView};

use super::folder::{CONFIG, TOKENIZER};
use super::*;
use crate::architecture;
use crate::gguf::tests::Builder;

/// A BERT of two layers, hidden 4, intermediate 8, with the tensors' names under a prefix.
fn model(dir: &Path, prefix: &str) {
    let config = r#"{"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 2, "max_position_embeddings": 16}"#;
    std::fs::write(dir.join(CONFIG), config).unwrap();
    std::fs::write(dir.join(TOKENIZER), "{}").unwrap();
    std::fs::write(dir.join("vocab.txt"), "not part of the digest").unwrap();
    let zeros = vec![0u8; 8 * 4 * 8];
    let mut tensors = Vec::new();
    for layer in 0..2 {
        for linear in architecture::find("bert").unwrap().linears {
            let shape = match *linear {
                "intermediate.dense" => vec![8, 4],
                "output.dense" => vec![4, 8],
                _ => vec![4, 4],
            };
            let bytes = &zeros[..shape.iter().product::<usize>() * 4];
            let view = TensorView::new(Dtype::F32, shape, bytes).unwrap();
            tensors.push((format!("{prefix}encoder.layer.{layer}.{linear}.weight"), view));
        }
    }
    let ids = TensorView::new(Dtype::I64, vec![1, 16], &zeros[..128]).unwrap();
    tensors.push((format!("{prefix}embeddings.position_ids"), ids));
    let words = TensorView::new(Dtype::F32, vec![5, 4], &zeros[..80]).unwrap();
    tensors.push((format!("{prefix}embeddings.word_embeddings.weight"), words));
    let bytes = safetensors::serialize(tensors, None).unwrap();
    std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
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
        assert_eq!(base.parameters, 2 * (4 * 16 + 2 * 32) + 20);
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
    std::fs::write(dir.path().join("more.safetensors"), "").unwrap();
    let error = check(dir.path(), &base).unwrap_err().to_string();
    assert!(error.contains("more.safetensors is not part of"), "{error}");
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
    assert!(error().contains("\"mamba\" is not supported; supported are: bert, roberta"), "{}", error());
    std::fs::write(dir.path().join(CONFIG), "{").unwrap();
    assert!(error().contains("not valid JSON"), "{}", error());
    std::fs::write(dir.path().join(CONFIG), r#"{"model_type": "bert", "num_hidden_layers": 3}"#).unwrap();
    assert!(error().contains("12 linear layers"), "{}", error());
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

/// Zero weights of the given shapes, as a .safetensors file.
fn weights(path: &Path, shapes: &[(&str, &[usize])]) {
    let zeros = vec![0u8; 4096];
    let views = shapes.iter().map(|(name, shape)| {
        let bytes = shape.iter().product::<usize>() * 4;
        ((*name).to_owned(), TensorView::new(Dtype::F32, shape.to_vec(), &zeros[..bytes]).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
}

/// Name, output and input size of every layer.
fn layers(base: &v1::BaseModel) -> Vec<(&str, u32, u32)> {
    base.linears.iter().map(|linear| (linear.name.as_str(), linear.out_features, linear.in_features)).collect()
}

#[test]
fn weights_of_gpt2_lie_the_other_way_round() {
    for prefix in ["", "transformer."] {
        let dir = tempfile::tempdir().unwrap();
        let config = r#"{"model_type": "gpt2", "n_embd": 4, "n_layer": 1, "n_positions": 16}"#;
        std::fs::write(dir.path().join(CONFIG), config).unwrap();
        std::fs::write(dir.path().join(TOKENIZER), "{}").unwrap();
        let name = |part: &str| format!("{prefix}{part}");
        let names = ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj", "wte", "h.0.attn"];
        let names = names.map(|part| name(&format!("{part}.weight")));
        let shapes: [&[usize]; 6] = [&[4, 12], &[4, 4], &[4, 16], &[16, 4], &[5, 4], &[4, 4]];
        let tensors: Vec<(&str, &[usize])> = names.iter().map(String::as_str).zip(shapes).collect();
        weights(&dir.path().join("model.safetensors"), &tensors);
        let base = describe(dir.path(), "g").unwrap();
        let expected =
            [("h.0.attn.c_attn", 12, 4), ("h.0.attn.c_proj", 4, 4), ("h.0.mlp.c_fc", 16, 4), ("h.0.mlp.c_proj", 4, 16)];
        assert_eq!(layers(&base), expected);
        assert_eq!((base.hidden_size, base.max_positions), (4, 16));
    }
}

/// A Llama of one layer in two files, `prefix` before its tensors' names.
fn sharded(dir: &Path, prefix: &str) {
    let config = r#"{"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1, "max_position_embeddings": 16}"#;
    std::fs::write(dir.join(CONFIG), config).unwrap();
    std::fs::write(dir.join(TOKENIZER), "{}").unwrap();
    let names = architecture::find("llama").unwrap().linears;
    let names: Vec<String> = names.iter().map(|linear| format!("{prefix}layers.0.{linear}.weight")).collect();
    let mut tensors: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &[4, 4][..])).collect();
    tensors.push(("lm_head.weight", &[5, 4]));
    weights(&dir.join("model-00001-of-00002.safetensors"), &tensors[..3]);
    weights(&dir.join("model-00002-of-00002.safetensors"), &tensors[3..]);
}

#[test]
fn shards_are_one_model_with_and_without_an_index() {
    for prefix in ["", "model."] {
        let dir = tempfile::tempdir().unwrap();
        sharded(dir.path(), prefix);
        let base = describe(dir.path(), "l").unwrap();
        assert_eq!(base.linears.len(), 7);
        assert_eq!(base.linears[0].name, "model.layers.0.self_attn.q_proj");
        assert_eq!(base.parameters, 7 * 16 + 20);
        assert_eq!(base.files.len(), 4);
        let index = |file: &str| {
            let map = serde_json::json!({"weight_map": {"lm_head.weight": file}});
            std::fs::write(dir.path().join("model.safetensors.index.json"), map.to_string()).unwrap();
            describe(dir.path(), "l").map_err(|error| error.to_string())
        };
        assert_eq!(index("model-00002-of-00002.safetensors").unwrap(), base, "the index is no part of the digest");
        let error = index("model-00001-of-00002.safetensors").unwrap_err();
        assert!(error.contains("places tensor \"lm_head.weight\" in \"model-00001-of-00002.safetensors\""), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    sharded(dir.path(), "model.");
    std::fs::copy(dir.path().join("model-00001-of-00002.safetensors"), dir.path().join("x.safetensors")).unwrap();
    let error = describe(dir.path(), "l").unwrap_err().to_string();
    assert!(error.contains("keep one copy of the weights"), "{error}");
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
            assert!(describe(dir.path(), "r").unwrap_err().to_string().contains("2 positions, 2 of which"));
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
        (Builder::llama().without("blk.1.attn_q.weight"), "13 linear layers"),
        (Builder::llama().number("llama.block_count", 3), "3 layers of a llama model have 21"),
        (Builder::llama().tensor("blk.0.ssm_in.weight", &[32], 0), "no tensor \"blk.0.ssm_in.weight\""),
    ] {
        std::fs::write(&path, builder.bytes()).unwrap();
        let error = describe(&path, "x").unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
