use super::*;
use safetensors::tensor::{Dtype, TensorView};

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
fn what_is_missing_or_unsupported_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = || describe(dir.path(), "x").unwrap_err().to_string();
    assert!(error().contains("holds no config.json"), "{}", error());
    model(dir.path(), "");
    std::fs::write(dir.path().join(CONFIG), r#"{"model_type": "mamba"}"#).unwrap();
    assert!(error().contains("\"mamba\" is not supported; supported are: bert"), "{}", error());
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
    assert_eq!(find(&["attention.output.dense"]).unwrap().len(), 2);
    let error = find(&["query", "querry"]).unwrap_err().to_string();
    assert!(error.contains("did you mean \"query\"?"), "{error}");
    assert!(error.contains("there are: attention.self.query, attention.self.key"), "{error}");
    assert!(find(&["uery"]).is_err() && find(&[""]).is_err());
}
