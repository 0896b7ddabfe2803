//! Every architecture computes what transformers computes, alone and under a PEFT adapter.

use std::path::PathBuf;

use rondo_methods::tensor::parts_of;
use rondo_methods::{Delta, Tensor, TensorSet};
use rondo_trainer::adapters::{Adapters, Parts};
use rondo_trainer::batch::{Batch, Encoded};
use rondo_trainer::models::{LayerCache, Transformer};
use tch::Device;

use crate::support::*;

/// Architecture and targets of the golden adapter.
const GOLDENS: [(&str, &[&str]); 3] = [
    ("roberta", &["attention.self.query", "attention.self.value", "intermediate.dense"]),
    ("distilbert", &["attention.q_lin", "attention.v_lin", "ffn.lin2"]),
    ("gpt2", &["attn.c_attn", "mlp.c_proj"]),
];

fn folder(architecture: &str) -> PathBuf {
    golden(&format!("tiny-{architecture}"))
}

fn goldens(architecture: &str) -> TensorSet {
    golden_tensors(&format!("tiny-{architecture}.safetensors"))
}

/// States of all texts in one batch.
fn states(model: &dyn Transformer, encoded: &Encoded, adapters: &Adapters) -> Tensor {
    let texts: Vec<usize> = (0..encoded.len()).collect();
    let batch = Batch::new(encoded, &texts, Device::Cpu).unwrap();
    plain(&tch::no_grad(|| model.forward(&batch, adapters)).unwrap())
}

fn assert_equal(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.shape, expected.shape, "{what}");
    let off = distance(&found.data, &expected.data);
    assert!(off < 1e-5, "{what}: off by {off}");
}

/// The golden LoRA pairs, alpha / r = 2, on the model's layers; `prefix` stands before each layer's
/// name.
fn adapters(model: &dyn Transformer, tensors: &TensorSet, targets: &[&str], prefix: &str) -> Adapters {
    let mut adapters = Adapters::none();
    let delta = Delta::product(&["lora_B", "lora_A"]).scaled(2.0);
    let mut attached = 0;
    for name in model.linears().names().filter(|name| targets.iter().any(|target| name.ends_with(target))) {
        let pair: Parts = parts_of(tensors, &format!("lora.{name}"))
            .into_iter()
            .map(|(part, Tensor { shape, data })| {
                let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
                (part, tch::Tensor::from_slice(&data).view(shape.as_slice()))
            })
            .collect();
        adapters.attach(model.linears(), &format!("{prefix}{name}"), delta.clone(), pair).unwrap();
        attached += 1;
    }
    assert_eq!(attached, 2 * targets.len());
    adapters
}

#[test]
fn hidden_states_equal_transformers() {
    for (architecture, _) in GOLDENS {
        let model = encoder(&folder(architecture));
        let goldens = goldens(architecture);
        let encoded = golden_texts(&goldens);
        assert_eq!(encoded.len(), 4);
        assert_equal(architecture, &states(&*model, &encoded, &Adapters::none()), &goldens["hidden"]);
    }
}

#[test]
fn adapters_by_name_equal_peft() {
    for (architecture, targets) in GOLDENS {
        let model = encoder(&folder(architecture));
        let goldens = goldens(architecture);
        let encoded = golden_texts(&goldens);
        let prefix = if architecture == "gpt2" { "transformer." } else { &format!("{architecture}.") };
        for prefix in ["", prefix] {
            let adapters = adapters(&*model, &goldens, targets, prefix);
            assert_equal(architecture, &states(&*model, &encoded, &adapters), &goldens["lora.hidden"]);
        }
        assert!(distance(&goldens["hidden"].data, &goldens["lora.hidden"].data) > 0.1);
    }
}

#[test]
fn the_registry_describes_what_is_loaded() {
    for (architecture, _) in GOLDENS.into_iter().chain([("bert", &[][..])]) {
        let model = encoder(&folder(architecture));
        let base = rondo_base::describe(&folder(architecture), "tiny").unwrap();
        assert_eq!(base.hidden_size as usize, model.hidden_size(), "{architecture}");
        assert_eq!(base.max_positions as usize, model.max_positions(), "{architecture}");
        assert_eq!(model.max_positions(), 40, "{architecture}");
        let linears = model.linears();
        assert_eq!(base.linears.len(), linears.names().len(), "{architecture}");
        for linear in &base.linears {
            let size = linears.weight(linears.find(&linear.name).unwrap()).size().unwrap();
            assert_eq!(size, (linear.out_features.into(), linear.in_features.into()), "{architecture} {}", linear.name);
        }
    }
}

#[test]
fn a_text_is_the_same_alone_and_in_a_batch() {
    for (architecture, targets) in GOLDENS {
        let model = encoder(&folder(architecture));
        let goldens = goldens(architecture);
        let encoded = golden_texts(&goldens);
        let adapters = adapters(&*model, &goldens, targets, "");
        let mut alone = Vec::new();
        for text in 0..encoded.len() {
            let batch = Batch::new(&encoded, &[text], Device::Cpu).unwrap();
            alone.extend(plain(&model.forward(&batch, &adapters).unwrap()).data);
        }
        let off = distance(&alone, &goldens["lora.hidden"].data);
        assert!(off < 1e-5, "{architecture}: off by {off}");
    }
}

#[test]
fn gpt2_logits_equal_transformers() {
    let model = encoder(&folder("gpt2"));
    let goldens = goldens("gpt2");
    let states = states(&*model, &golden_texts(&goldens), &Adapters::none());
    let states = tch::Tensor::from_slice(&states.data).view([-1, 32]);
    let logits = states.matmul(&model.vocabulary().unwrap().dense().unwrap().tr());
    assert_equal("logits", &plain(&logits), &goldens["logits"]);
    assert!(encoder(&folder("roberta")).vocabulary().is_none());
}

/// Token by token behind a cache, texts of different lengths together, as generation does.
#[test]
fn gpt2_with_a_cache_computes_the_same() {
    let model = encoder(&folder("gpt2"));
    let goldens = goldens("gpt2");
    let encoded = golden_texts(&goldens);
    let adapters = adapters(&*model, &goldens, GOLDENS[2].1, "");
    let _no_grad = tch::no_grad_guard();
    let mut caches: Vec<LayerCache> = (0..model.layers()).map(|_| LayerCache::default()).collect();
    let mut run = |batch: &Batch| {
        let mut x = model.embed(batch).unwrap();
        for (number, cache) in caches.iter_mut().enumerate() {
            x = model.layer(number, &x, batch, &adapters, Some(cache)).unwrap();
        }
        plain(&model.finish(&x).unwrap()).data
    };
    // Two texts of 1 and 8 tokens or more; the second's rest follows one by one, the first goes on
    // with it.
    let texts = [encoded.text(1), encoded.text(0)];
    let starts = [1, texts[1].len() / 2];
    let mut part = Encoded::new();
    texts.iter().zip(starts).for_each(|(text, start)| part.push(text[..start].iter().copied()));
    let mut last = run(&Batch::new(&part, &[0, 1], Device::Cpu).unwrap());
    for step in 0..texts[1].len() - starts[1] {
        let mut next = Encoded::new();
        next.push([texts[1][step]]);
        next.push([texts[1][starts[1] + step]]);
        let offsets = [1 + step as i64, (starts[1] + step) as i64];
        last = run(&Batch::following(&next, &[0, 1], &offsets, Device::Cpu).unwrap());
    }
    let mut whole = Encoded::new();
    let longer = texts[0].iter().chain(&texts[1][..texts[1].len() - starts[1]]);
    whole.push(longer.copied());
    whole.push(texts[1].iter().copied());
    let expected = states(&*model, &whole, &adapters).data;
    let ends = [whole.text(0).len(), whole.text(0).len() + whole.text(1).len()];
    let expected = ends.map(|end| expected[(end - 1) * 32..end * 32].to_vec()).concat();
    let off = distance(&last, &expected);
    assert!(off < 1e-5, "off by {off}");
}

#[test]
fn relatives_and_prefixes_load_as_the_same_model() {
    let same = |_: &mut serde_json::Value| {};
    let roberta = encoder(&folder("roberta"));
    let encoded = golden_texts(&goldens("roberta"));
    let expected = states(&*roberta, &encoded, &Adapters::none());
    for relative in ["xlm-roberta", "camembert"] {
        let dir = tempfile::tempdir().unwrap();
        altered(&folder("roberta"), dir.path(), |_| {}, |config| config["model_type"] = relative.into());
        assert_eq!(states(&*encoder(dir.path()), &encoded, &Adapters::none()), expected);
    }
    // A language model's or a classifier's checkpoint: a prefix, and a head that is not needed.
    for (architecture, prefix, heads) in [
        ("roberta", "roberta.", ["lm_head.dense.weight", "classifier.out_proj.bias"]),
        ("distilbert", "distilbert.", ["vocab_transform.weight", "pre_classifier.bias"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let rename = |tensors: &mut TensorSet| {
            let old = std::mem::take(tensors);
            tensors.extend(old.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
            tensors.extend(heads.map(|name| (name.to_owned(), Tensor::zeros(&[1]))));
        };
        altered(&folder(architecture), dir.path(), rename, same);
        let goldens = goldens(architecture);
        let found = states(&*encoder(dir.path()), &golden_texts(&goldens), &Adapters::none());
        assert_equal(architecture, &found, &goldens["hidden"]);
    }
    // GPT-2's golden has the prefix; the bare model has none, and old files hold the causal mask.
    let dir = tempfile::tempdir().unwrap();
    let strip = |tensors: &mut TensorSet| {
        let old = std::mem::take(tensors);
        tensors.extend(old.into_iter().map(|(name, tensor)| (name.replacen("transformer.", "", 1), tensor)));
        tensors.insert("h.1.attn.bias".into(), Tensor::zeros(&[1, 1, 40, 40]));
        tensors.insert("h.1.attn.masked_bias".into(), Tensor::zeros(&[1]));
        tensors.insert("lm_head.weight".into(), tensors["wte.weight"].clone());
    };
    altered(&folder("gpt2"), dir.path(), strip, same);
    let goldens = goldens("gpt2");
    assert_equal(
        "gpt2",
        &states(&*encoder(dir.path()), &golden_texts(&goldens), &Adapters::none()),
        &goldens["hidden"],
    );
}

#[test]
fn a_vocabulary_of_its_own_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let own = |tensors: &mut TensorSet| drop(tensors.insert("lm_head.weight".into(), Tensor::zeros(&[71, 32])));
    altered(&folder("gpt2"), dir.path(), own, |config| config["tie_word_embeddings"] = false.into());
    let vocabulary = encoder(dir.path()).vocabulary().unwrap().dense().unwrap();
    assert_eq!(plain(&vocabulary), Tensor::zeros(&[71, 32]));
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let set = |architecture: &str, key: &'static str, value: serde_json::Value| {
        refusal(&folder(architecture), |_| {}, |config| config[key] = value.clone())
    };
    for (architecture, key, value) in [
        ("roberta", "position_embedding_type", "relative_key".into()),
        ("roberta", "is_decoder", true.into()),
        ("roberta", "hidden_act", "silu".into()),
        ("distilbert", "activation", "silu".into()),
        ("distilbert", "quantization_config", serde_json::json!({"bits": 4})),
        ("gpt2", "scale_attn_weights", false.into()),
        ("gpt2", "scale_attn_by_inverse_layer_idx", true.into()),
        ("gpt2", "reorder_and_upcast_attn", true.into()),
        ("gpt2", "add_cross_attention", true.into()),
        ("gpt2", "activation_function", "silu".into()),
    ] {
        let refused = set(architecture, key, value);
        assert!(refused.contains(&format!("`{key}`")) && refused.contains("supported"), "{architecture}: {refused}");
    }
    for (architecture, key, value, says) in [
        ("roberta", "pad_token_id", 41.into(), "42"),
        ("roberta", "pad_token_id", "one".into(), "pad_token_id"),
        ("roberta", "layer_norm_eps", "small".into(), "layer_norm_eps"),
        ("distilbert", "n_heads", 5.into(), "`dim` 32 is no multiple of 5"),
        ("distilbert", "n_layers", 3.into(), "transformer.layer.2"),
        ("gpt2", "n_head", 5.into(), "`n_embd` 32 is no multiple of 5"),
        ("gpt2", "n_inner", 64.into(), "c_fc.weight"),
        ("gpt2", "tie_word_embeddings", "yes".into(), "tie_word_embeddings"),
        ("gpt2", "tie_word_embeddings", false.into(), "lm_head.weight"),
    ] {
        let refused = set(architecture, key, value);
        assert!(refused.contains(says), "{architecture} {key}: {refused}");
    }
}
