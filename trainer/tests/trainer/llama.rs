//! The Llama family computes what Hugging Face's does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rondo_methods::Delta;
use rondo_methods::file::TensorFile;
use rondo_methods::{Tensor, TensorSet, file};
use rondo_proto::run_file::{Dtype, Quantise};
use rondo_trainer::adapters::{Adapters, Parts};
use rondo_trainer::batch::{Batch, Encoded};
use rondo_trainer::models::{self, LayerCache, Transformer};
use rondo_trainer::train::optim::{AdamW, AdamWConfig};
use serde_json::Value;
use tch::{Device, Kind};

use crate::support::*;

/// The models of `make_llama.py`.
const FAMILY: [&str; 5] = ["tiny-llama", "tiny-mistral", "tiny-qwen2", "tiny-qwen3", "tiny-llama-biased"];

fn load(dir: &Path) -> Box<dyn Transformer> {
    models::load(dir, Device::Cpu, Kind::Float).unwrap()
}

/// The golden texts: `ids` end to end, `lengths` of each.
fn texts(goldens: &TensorSet) -> Encoded {
    let mut encoded = Encoded::new();
    let mut ids = goldens["ids"].data.iter().map(|&id| id as i64);
    for &length in &goldens["lengths"].data {
        encoded.push(ids.by_ref().take(length as usize));
    }
    encoded
}

fn all(encoded: &Encoded) -> Vec<usize> {
    (0..encoded.len()).collect()
}

/// Logits of every token, `[n, vocabulary]`.
fn logits(model: &dyn Transformer, batch: &Batch) -> Tensor {
    let states = model.forward(batch, &Adapters::none()).unwrap();
    to_vocabulary(model, &states)
}

fn to_vocabulary(model: &dyn Transformer, states: &tch::Tensor) -> Tensor {
    plain(&states.linear::<tch::Tensor>(&model.vocabulary().unwrap().dense().unwrap(), None))
}

/// Keys and values of every layer.
fn empty_cache(model: &dyn Transformer) -> Vec<LayerCache> {
    (0..model.layers()).map(|_| LayerCache::default()).collect()
}

/// Logits of every token behind what the cache holds.
fn cached(model: &dyn Transformer, batch: &Batch, cache: &mut [LayerCache]) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let mut x = model.embed(batch).unwrap();
    for (number, cache) in cache.iter_mut().enumerate() {
        x = model.layer(number, &x, batch, &Adapters::none(), Some(cache)).unwrap();
    }
    to_vocabulary(model, &model.finish(&x).unwrap())
}

fn plain(tensor: &tch::Tensor) -> Tensor {
    let shape = tensor.size().iter().map(|&n| n as usize).collect();
    let flat = tensor.detach().to_kind(Kind::Float).contiguous().view(-1);
    Tensor { shape, data: Vec::<f32>::try_from(&flat).unwrap() }
}

/// A copy of a golden model with its tensors and its config.json changed.
fn altered(name: &str, dir: &Path, change: impl Fn(&mut TensorSet), config: impl Fn(&mut Value)) {
    let from = golden(name);
    let mut tensors = TensorFile::open(&from.join("model.safetensors")).unwrap().read_all(|_| true).unwrap();
    change(&mut tensors);
    file::write(&dir.join("model.safetensors"), &tensors, Dtype::F32, &Default::default()).unwrap();
    let mut settings = serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    config(&mut settings);
    fs::write(dir.join("config.json"), settings.to_string()).unwrap();
}

/// Rows of a matrix.
fn rows(tensor: &Tensor, rows: impl IntoIterator<Item = usize>) -> Tensor {
    let wide = tensor.shape[1];
    let data: Vec<f32> = rows.into_iter().flat_map(|row| tensor.data[row * wide..][..wide].to_vec()).collect();
    Tensor { shape: vec![data.len() / wide, wide], data }
}

#[test]
fn logits_equal_transformers() {
    let goldens = golden_tensors("llama-family.safetensors");
    let encoded = texts(&goldens);
    for name in FAMILY {
        let model = load(&golden(name));
        let batch = Batch::new(&encoded, &all(&encoded), Device::Cpu).unwrap();
        assert_close(name, &logits(&*model, &batch), &goldens[name], 1e-5);
    }
}

#[test]
fn rotations_equal_transformers() {
    let expected = golden_tensors("llama-rope.safetensors");
    let encoded = texts(&golden_tensors("llama-family.safetensors"));
    let changes: Value = serde_json::from_slice(&fs::read(golden("llama-rope.json")).unwrap()).unwrap();
    let plain = &golden_tensors("llama-family.safetensors")["tiny-llama"];
    assert!(changes.as_object().unwrap().len() >= 6);
    for (name, change) in changes.as_object().unwrap() {
        let dir = tempfile::tempdir().unwrap();
        altered(
            "tiny-llama",
            dir.path(),
            |_| {},
            |config| {
                config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            },
        );
        let model = load(dir.path());
        let batch = Batch::new(&encoded, &all(&encoded), Device::Cpu).unwrap();
        let found = logits(&*model, &batch);
        assert_close(name, &found, &expected[name], 1e-5);
        assert!(distance(&found.data, &plain.data) > 1e-2, "{name} changes nothing");
    }
}

#[test]
fn a_cache_changes_nothing() {
    let goldens = golden_tensors("llama-family.safetensors");
    let encoded = texts(&goldens);
    let starts: Vec<usize> = (0..encoded.len()).map(|text| (0..text).map(|t| encoded.text(t).len()).sum()).collect();
    for name in FAMILY {
        let model = load(&golden(name));
        // Prompts of different length, then parts of different length, then one token of each at a time.
        let mut cache = empty_cache(&*model);
        let mut done = [0_usize; 4];
        for step in [[2, 10, 1, 4], [2, 7, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]] {
            let mut part = Encoded::new();
            let mut places = Vec::new();
            for (text, length) in step.into_iter().enumerate() {
                // A text that is at its end goes on with rubbish, which is not looked at.
                let (from, ids) = (done[text], encoded.text(text));
                part.push((from..from + length).map(|at| ids.get(at).copied().unwrap_or(3)));
                places.extend((from..from + length).map(|at| (at < ids.len()).then(|| starts[text] + at)));
            }
            let offsets: Vec<i64> = done.iter().map(|&n| n as i64).collect();
            let batch = Batch::following(&part, &[0, 1, 2, 3], &offsets, Device::Cpu).unwrap();
            let found = cached(&*model, &batch, &mut cache);
            let there = places.iter().enumerate().filter(|(_, place)| place.is_some()).map(|(row, _)| row);
            let expected = rows(&goldens[name], places.iter().flatten().copied());
            assert_close(name, &rows(&found, there), &expected, 1e-5);
            done.iter_mut().zip(step).for_each(|(done, length)| *done += length);
        }
    }
}

#[test]
fn cached_texts_can_be_chosen() {
    let goldens = golden_tensors("llama-family.safetensors");
    let encoded = texts(&goldens);
    let model = load(&golden("tiny-qwen3"));
    let mut cache = empty_cache(&*model);
    let mut part = Encoded::new();
    part.push(encoded.text(0)[..3].iter().copied());
    part.push(encoded.text(3)[..7].iter().copied());
    cached(&*model, &Batch::new(&part, &[0, 1], Device::Cpu).unwrap(), &mut cache);
    cache.iter_mut().for_each(|layer| layer.select(&[1, 0, 1]).unwrap());
    let mut rest = Encoded::new();
    rest.push(encoded.text(3)[7..12].iter().copied());
    rest.push(encoded.text(0)[3..5].iter().copied());
    rest.push(encoded.text(3)[7..9].iter().copied());
    let batch = Batch::following(&rest, &[0, 1, 2], &[7, 3, 7], Device::Cpu).unwrap();
    let found = cached(&*model, &batch, &mut cache);
    let expected = rows(&goldens["tiny-qwen3"], (33..38).chain(3..5).chain(33..35));
    assert_close("chosen", &found, &expected, 1e-5);

    let wrong = Batch::following(&rest, &[0, 1], &[7, 3], Device::Cpu).unwrap();
    let error = model.layer(0, &model.embed(&wrong).unwrap(), &wrong, &Adapters::none(), Some(&mut cache[0]));
    assert!(error.unwrap_err().to_string().contains("3 texts"));
}

#[test]
fn a_text_is_the_same_alone_and_in_a_batch() {
    let goldens = golden_tensors("llama-family.safetensors");
    let encoded = texts(&goldens);
    for name in FAMILY {
        let model = load(&golden(name));
        let mut start = 0;
        for text in 0..encoded.len() {
            let length = encoded.text(text).len();
            let alone = logits(&*model, &Batch::new(&encoded, &[text], Device::Cpu).unwrap());
            assert_close(name, &alone, &rows(&goldens[name], start..start + length), 1e-5);
            start += length;
        }
    }
}

#[test]
fn bf16_is_near() {
    let goldens = golden_tensors("llama-family.safetensors");
    let encoded = texts(&goldens);
    for name in FAMILY {
        let model = models::load(&golden(name), Device::Cpu, Kind::BFloat16).unwrap();
        let batch = Batch::new(&encoded, &all(&encoded), Device::Cpu).unwrap();
        let states = model.forward(&batch, &Adapters::none()).unwrap();
        assert_eq!(states.kind(), Kind::BFloat16);
        assert_close(name, &to_vocabulary(&*model, &states), &goldens[name], 0.1);
    }
}

#[test]
fn targets_have_the_names_of_the_checkpoint() {
    let model = load(&golden("tiny-llama"));
    let names: BTreeSet<&str> = model.linears().names().collect();
    let tensors = TensorFile::open(&golden("tiny-llama/model.safetensors")).unwrap().read_all(|_| true).unwrap();
    let expected: BTreeSet<&str> = tensors
        .keys()
        .filter_map(|name| name.strip_suffix("_proj.weight").map(|_| name.trim_end_matches(".weight")))
        .collect();
    assert_eq!(names, expected);
    assert_eq!(names.len(), 14);
}

/// Mean of -log p over the tokens that count (`counts` by token of the batch), each from the state before it.
fn token_loss(
    model: &dyn Transformer,
    batch: &Batch,
    encoded: &Encoded,
    counts: &[f32],
    adapters: &Adapters,
) -> tch::Tensor {
    let (mut from, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
    for text in all(encoded) {
        let ids = encoded.text(text);
        for at in (1..ids.len()).filter(|at| counts[start + at] == 1.0) {
            from.push((start + at - 1) as i64);
            targets.push(ids[at]);
        }
        start += ids.len();
    }
    let states = model.forward(batch, adapters).unwrap().index_select(0, &tch::Tensor::from_slice(&from));
    let logits = states.linear::<tch::Tensor>(&model.vocabulary().unwrap().dense().unwrap(), None);
    logits.cross_entropy_for_logits(&tch::Tensor::from_slice(&targets))
}

/// Attaches a delta to every target of the golden file; gives the tensors that train, by their name in it.
fn adapters(
    model: &dyn Transformer,
    goldens: &TensorSet,
    delta: &Delta,
    trained: &[&str],
) -> (Adapters, Vec<(String, tch::Tensor)>) {
    let (mut adapters, mut parameters) = (Adapters::none(), Vec::new());
    for target in goldens.keys().filter_map(|name| name.strip_suffix(".R")).filter(|name| !name.starts_with("grad.")) {
        let mut parts = Parts::new();
        for part in ["lora_A", "lora_B", "R"] {
            let (name, shape) = (format!("{target}.{part}"), &goldens[&format!("{target}.{part}")].shape);
            let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            let mut tensor = tch::Tensor::from_slice(&goldens[&name].data).view(shape.as_slice()).copy();
            if trained.contains(&part) {
                tensor = tensor.set_requires_grad(true);
                parameters.push((name, tensor.shallow_clone()));
            }
            parts.insert(part.to_owned(), tensor);
        }
        adapters.attach(model.linears(), target, delta.clone(), parts).unwrap();
    }
    assert_eq!(parameters.len(), 6 * trained.len());
    (adapters, parameters)
}

/// Loss, gradients and ten steps of AdamW are those of peft and torch.
fn trains_as_torch(word: &str, delta: &Delta, trained: &[&str]) {
    let goldens = golden_tensors("llama-lora.safetensors");
    let (encoded, counts) = (texts(&goldens), &goldens["counts"].data);
    let model = load(&golden("tiny-llama"));
    let batch = Batch::new(&encoded, &all(&encoded), Device::Cpu).unwrap();
    let (adapters, parameters) = adapters(&*model, &goldens, delta, trained);
    let loss = || token_loss(&*model, &batch, &encoded, counts, &adapters);

    let first = loss();
    assert_close("loss", &plain(&first.view(1)), &goldens[&format!("{word}.loss")], 1e-5);
    let tensors: Vec<tch::Tensor> = parameters.iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
    let gradients = tch::Tensor::run_backward(&[&first], &tensors, false, false);
    for ((name, _), gradient) in parameters.iter().zip(&gradients) {
        assert_close(name, &plain(gradient), &goldens[&format!("grad.{name}")], 1e-4);
    }

    let leaves = tensors.iter().map(tch::Tensor::shallow_clone).collect();
    let mut adam = AdamW::new(AdamWConfig { lr: 5e-2, ..Default::default() }, leaves).unwrap();
    for (step, expected) in goldens[&format!("{word}.losses")].data.iter().enumerate() {
        let loss = loss();
        let found = loss.double_value(&[]) as f32;
        assert!((found - expected).abs() < 1e-3, "step {step}: {found}, expected {expected}");
        adam.step(&tch::Tensor::run_backward(&[&loss], &tensors, false, false)).unwrap();
    }
}

#[test]
fn lora_trains_as_in_peft() {
    let product = Delta::Product(vec![Delta::mat("lora_B"), Delta::mat("lora_A")]);
    trains_as_torch("lora", &Delta::Scale(2.0, Box::new(product)), &["lora_A", "lora_B"]);
}

#[test]
fn a_square_between_frozen_factors_trains_as_in_torch() {
    let delta = Delta::Product(vec![Delta::mat("lora_B"), Delta::mat("R"), Delta::mat("lora_A")]);
    trains_as_torch("square", &delta, &["R"]);
}

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
    let bf16 = models::load(&golden("tiny-llama.gguf"), Device::Cpu, Kind::BFloat16).unwrap();
    assert_close("bf16", &logits_in(&*bf16, &batch), &goldens["logits"], 0.1);
}

fn logits_in(model: &dyn Transformer, batch: &Batch) -> Tensor {
    to_vocabulary(model, &model.forward(batch, &Adapters::none()).unwrap())
}

#[test]
fn nf4_packs_the_linear_layers_and_nothing_else() {
    let encoded = texts(&golden_tensors("llama-family.safetensors"));
    let batch = Batch::new(&encoded, &all(&encoded), Device::Cpu).unwrap();
    let packed = models::load_as(&golden("tiny-llama"), Device::Cpu, Kind::Float, Quantise::Nf4).unwrap();
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
    let refusal = |dir: &Path| models::load(dir, Device::Cpu, Kind::Float).err().map(|error| error.to_string());
    let dir = tempfile::tempdir().unwrap();
    let index = sharded(dir.path());
    assert_close("parts", &logits(&*load(dir.path()), &batch), &goldens["tiny-mistral"], 1e-5);

    // Another copy of the weights is refused, unless an index says which files count.
    fs::copy(golden("tiny-mistral/model.safetensors"), dir.path().join("consolidated.safetensors")).unwrap();
    assert!(refusal(dir.path()).unwrap().contains("consolidated.safetensors"));
    let written = serde_json::json!({"metadata": {}, "weight_map": index}).to_string();
    fs::write(dir.path().join("model.safetensors.index.json"), written).unwrap();
    assert_close("index", &logits(&*load(dir.path()), &batch), &goldens["tiny-mistral"], 1e-5);

    fs::remove_file(dir.path().join("model-00002-of-00003.safetensors")).unwrap();
    assert!(refusal(dir.path()).unwrap().contains("model-00002-of-00003.safetensors"));
    fs::remove_file(dir.path().join("model.safetensors.index.json")).unwrap();
    fs::remove_file(dir.path().join("consolidated.safetensors")).unwrap();
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
        models::load(dir.path(), Device::Cpu, Kind::Float).err().map(|error| error.to_string()).unwrap_or_default()
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
        ("`rope_scaling` must be a table", json!({"rope_scaling": 4.0})),
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
        tensors.insert("lm_head.weight".into(), Tensor::zeros(&[101, 32]));
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), Tensor::zeros(&[4]));
    };
    assert_eq!(refusal("tiny-llama", &leftovers, same), "");
}

/// SmolLM2-135M-Instruct as GGUF: what `RONDO_SMOLLM2` names, or where `cargo xtask setup --only smollm2` puts it.
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
        let (best, largest) = (goldens["best"].data[row] as usize, goldens["largest"].data[row]);
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
