//! Files of the Llama family: GGUF, packed weights, models in parts, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use rondo_methods::file::TensorFile;
use rondo_methods::{Tensor, TensorSet, file};
use rondo_proto::run_file::{Dtype, Quantise};
use rondo_trainer::adapters::Adapters;
use rondo_trainer::batch::{Batch, Encoded};
use rondo_trainer::models::{self, LoadOptions, Transformer};
use serde_json::Value;
use tch::{Device, Kind};

use crate::llama::{all, altered, cached, empty_cache, load, logits, plain, texts, to_vocabulary};
use crate::support::*;

#[test]
fn a_gguf_file_is_the_same_model() {
    let goldens = golden_tensors("llama-gguf.safetensors");
    let encoded = texts(&goldens);
    let model = load(&golden("tiny-llama.gguf"));
    let batch = Batch::new(&encoded, &all(&encoded), Device::Cpu).unwrap();
    assert_close("logits", &logits(&*model, &batch), &goldens["logits"], 1e-5);

    let linears = model.linears();
    let names: Vec<&str> = linears.names().collect();
    let packed = (0..names.len()).filter(|&number| linears.weight(number).is_packed()).count();
    assert_eq!((names.len(), packed), (14, 12), "all but the layers in F16 and BF16");
    assert!(model.vocabulary().unwrap().is_packed());
    let query = linears.find("model.layers.0.self_attn.q_proj").unwrap();
    let rows = linears.weight(query).dense().unwrap().narrow(0, 0, 8);
    assert_close("rows", &plain(&rows), &goldens["q_proj"], 1e-7);
    let bf16 = models::load(&golden("tiny-llama.gguf"), LoadOptions::new(Device::Cpu, Kind::BFloat16)).unwrap();
    assert_close("bf16", &logits_in(&*bf16, &batch), &goldens["logits"], 0.1);
}

fn logits_in(model: &dyn Transformer, batch: &Batch) -> Tensor {
    to_vocabulary(model, &model.forward(batch, &Adapters::none()).unwrap())
}

#[test]
fn nf4_packs_the_linear_layers_and_nothing_else() {
    let encoded = texts(&golden_tensors("llama-family.safetensors"));
    let batch = Batch::new(&encoded, &all(&encoded), Device::Cpu).unwrap();
    let packed = models::load(
        &golden("tiny-llama"),
        LoadOptions { quantise: Quantise::Nf4, ..LoadOptions::new(Device::Cpu, Kind::Float) },
    )
    .unwrap();
    let linears = packed.linears();
    assert!((0..linears.names().len()).all(|number| linears.weight(number).is_packed()));
    assert!(!packed.vocabulary().unwrap().is_packed());
    // The same numbers written out.
    let dir = tempfile::tempdir().unwrap();
    let unpack = |tensors: &mut TensorSet| {
        for (number, name) in linears.names().enumerate() {
            let weight = plain(&linears.weight(number).dense().unwrap());
            let before = tensors.insert(format!("{name}.weight"), weight.clone()).unwrap();
            assert!(distance(&before.data, &weight.data) > 1e-3, "{name}");
        }
    };
    altered("tiny-llama", dir.path(), unpack, |_| {});
    let dense = load(dir.path());
    assert_close("logits", &logits(&*packed, &batch), &logits(&*dense, &batch), 1e-6);
}

/// A copy of a golden model in parts, and their index.
fn sharded(dir: &Path) -> serde_json::Map<String, Value> {
    let tensors = TensorFile::open(&golden("tiny-mistral/model.safetensors")).unwrap().read_all(|_| true).unwrap();
    let mut parts = vec![TensorSet::new(); 3];
    let mut index = serde_json::Map::new();
    for (number, (name, tensor)) in tensors.into_iter().enumerate() {
        index.insert(name.clone(), format!("model-0000{}-of-00003.safetensors", number % 3 + 1).into());
        parts[number % 3].insert(name, tensor);
    }
    for (number, part) in (1..).zip(&parts) {
        let path = dir.join(format!("model-0000{number}-of-00003.safetensors"));
        file::write(&path, part, Dtype::F32, &Default::default()).unwrap();
    }
    fs::copy(golden("tiny-mistral/config.json"), dir.join("config.json")).unwrap();
    index
}

#[test]
fn a_model_may_be_in_parts() {
    let goldens = golden_tensors("llama-family.safetensors");
    let encoded = texts(&goldens);
    let batch = Batch::new(&encoded, &all(&encoded), Device::Cpu).unwrap();
    let refusal =
        |dir: &Path| models::load(dir, LoadOptions::new(Device::Cpu, Kind::Float)).err().map(|error| error.to_string());
    let dir = tempfile::tempdir().unwrap();
    let index = sharded(dir.path());
    assert_close("parts", &logits(&*load(dir.path()), &batch), &goldens["tiny-mistral"], 1e-5);

    // Another copy of the weights is refused, unless an index says which files count.
    fs::copy(golden("tiny-mistral/model.safetensors"), dir.path().join("consolidated.safetensors")).unwrap();
    assert_close("consolidated", &logits(&*load(dir.path()), &batch), &goldens["tiny-mistral"], 1e-5);
    fs::rename(dir.path().join("consolidated.safetensors"), dir.path().join("copy.safetensors")).unwrap();
    assert!(refusal(dir.path()).unwrap().contains("copy.safetensors"));
    let written = serde_json::json!({"metadata": {}, "weight_map": index}).to_string();
    fs::write(dir.path().join("model.safetensors.index.json"), written).unwrap();
    assert_close("index", &logits(&*load(dir.path()), &batch), &goldens["tiny-mistral"], 1e-5);

    fs::remove_file(dir.path().join("model-00002-of-00003.safetensors")).unwrap();
    assert!(refusal(dir.path()).unwrap().contains("model-00002-of-00003.safetensors"));
    fs::remove_file(dir.path().join("model.safetensors.index.json")).unwrap();
    fs::remove_file(dir.path().join("copy.safetensors")).unwrap();
    assert!(refusal(dir.path()).unwrap().contains("model-00002-of-00003.safetensors"));
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let refusal = |name: &str, change: &dyn Fn(&mut TensorSet), config: Value| {
        let dir = tempfile::tempdir().unwrap();
        let extend = |settings: &mut Value| {
            settings.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        };
        altered(name, dir.path(), change, extend);
        models::load(dir.path(), LoadOptions::new(Device::Cpu, Kind::Float))
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let set = |name: &str, config: Value| refusal(name, &|_| {}, config);
    use serde_json::json;
    for (key, config) in [
        ("model_type", json!({"model_type": "gemma2"})),
        ("hidden_act", json!({"hidden_act": "gelu"})),
        ("quantization_config", json!({"quantization_config": {"quant_method": "gptq"}})),
        ("rope_type", json!({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}})),
        ("rope_type", json!({"rope_scaling": {"type": "mrope"}})),
        ("partial_rotary_factor", json!({"partial_rotary_factor": 0.5})),
    ] {
        let refused = set("tiny-llama", config);
        assert!(refused.contains(&format!("`{key}`")) && refused.contains("supported: "), "{refused}");
    }
    assert!(set("tiny-llama", json!({"model_type": "gemma2"})).contains("\"qwen3\""));
    let layers = json!({"layer_types": ["full_attention", "chunked_attention"]});
    assert!(set("tiny-qwen2", layers).contains("chunked_attention"));
    for (problem, config) in [
        ("`factor`", json!({"rope_scaling": {"rope_type": "linear"}})),
        ("`low_freq_factor`", json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}})),
        ("`rope_scaling` is 4.0; it must be a table", json!({"rope_scaling": 4.0})),
        ("3 key-value heads", json!({"num_key_value_heads": 3})),
        ("`vocab_size`", json!({"vocab_size": -1})),
        ("`head_dim`", json!({"head_dim": 0})),
        ("heads of 7 numbers", json!({"head_dim": 7})),
        ("`tie_word_embeddings`", json!({"tie_word_embeddings": "yes"})),
        ("[101, 32]", json!({"hidden_size": 64})),
        ("lm_head.weight", json!({"tie_word_embeddings": false})),
        ("model.layers.2.", json!({"num_hidden_layers": 3})),
        ("model.layers.1.mlp.down_proj.weight", json!({"num_hidden_layers": 1})),
        ("self_attn.q_proj.bias", json!({"attention_bias": true})),
        ("self_attn.q_norm.weight", json!({"model_type": "qwen3", "head_dim": 8})),
    ] {
        let refused = set("tiny-llama", config);
        assert!(refused.contains(problem), "{problem}: {refused}");
    }
    let same = json!({});
    let extra = |tensors: &mut TensorSet| {
        drop(tensors.insert("model.layers.0.mlp.experts.0.weight".into(), Tensor::zeros(&[1])))
    };
    assert!(refusal("tiny-llama", &extra, same.clone()).contains("model.layers.0.mlp.experts.0.weight"));
    let leftovers = |tensors: &mut TensorSet| {
        tensors.insert("lm_head.weight".into(), tensors["model.embed_tokens.weight"].clone());
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), Tensor::zeros(&[4]));
    };
    assert_eq!(refusal("tiny-llama", &leftovers, same), "");
}

/// SmolLM2-135M-Instruct as GGUF: what `RONDO_SMOLLM2` names, or where
/// `cargo xtask setup --only smollm2` puts it.
fn smollm2() -> PathBuf {
    let there =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../.rondo/models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf");
    std::env::var_os("RONDO_SMOLLM2").map_or(there, PathBuf::from)
}

#[test]
#[ignore = "needs SmolLM2 (`cargo xtask setup --only smollm2`, or its path in RONDO_SMOLLM2) and half a minute"]
#[allow(clippy::print_stderr, reason = "a check that did not run must say so")]
fn smollm2_from_gguf_equals_transformers() {
    let path = smollm2();
    if !path.exists() {
        eprintln!("\nNOT RUN: {} is not there; run `cargo xtask setup --only smollm2`\n", path.display());
        return;
    }
    let goldens = golden_tensors("smollm2.safetensors");
    let encoded = texts(&goldens);
    let model = load(&path);
    let batch = Batch::new(&encoded, &all(&encoded), Device::Cpu).unwrap();
    let _no_grad = tch::no_grad_guard();
    let found = logits(&*model, &batch);
    let columns: Vec<usize> = goldens["columns"].data.iter().map(|&column| column as usize).collect();
    let vocabulary = found.shape[1];
    let chosen = found.data.chunks(vocabulary).flat_map(|row| columns.iter().map(|&column| row[column])).collect();
    let chosen = Tensor { shape: goldens["logits"].shape.clone(), data: chosen };
    let off = distance(&chosen.data, &goldens["logits"].data);
    eprintln!("SmolLM2: logits off by at most {off}");
    assert!(off < 1e-3, "off by {off}");
    for (row, logits) in found.data.chunks(vocabulary).enumerate() {
        let best = goldens["best"].data[row] as usize;
        let largest = goldens["largest"].data[row];
        assert!((logits[best] - largest).abs() < 1e-3, "token {row}");
        assert!(logits.iter().all(|&logit| logit <= largest + 1e-3), "token {row}");
    }

    // The same one token after another.
    let mut cache = empty_cache(&*model);
    let ids = encoded.text(0);
    for (at, expected) in found.data.chunks(vocabulary).take(ids.len()).enumerate() {
        let mut one = Encoded::new();
        one.push([ids[at]]);
        let batch = Batch::following(&one, &[0], &[at as i64], Device::Cpu).unwrap();
        let logits = cached(&*model, &batch, &mut cache);
        assert!(distance(&logits.data, expected) < 1e-3, "token {at}");
    }
}
