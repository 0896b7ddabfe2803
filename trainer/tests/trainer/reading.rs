//! Folders whose files contradict each other compute what Hugging Face's transformers makes of
//! them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rondo_methods::{Tensor, TensorSet};
use rondo_trainer::batch::{Batch, Encoded};
use serde_json::Value;
use tch::Device;

use crate::llama::{all, altered, load, logits, texts};
use crate::support::*;

/// As `make_reading.py` does it.
fn change(what: &str, tensors: &mut TensorSet) {
    let words = tensors.keys().find(|name| name.ends_with("embed_tokens.weight") || name.ends_with("wte.weight"));
    let words = words.unwrap().clone();
    let wide = tensors[&words].shape[1];
    match what {
        "own head" => {
            let shape = tensors[&words].shape.clone();
            let data = tensors[&words].data.chunks(wide).rev().flatten().copied().collect();
            tensors.insert("lm_head.weight".into(), Tensor { shape, data });
        }
        "equal head" => drop(tensors.insert("lm_head.weight".into(), tensors[&words].clone())),
        "head alone" => {
            let head = tensors.remove(&words).unwrap();
            tensors.insert("lm_head.weight".into(), head);
        }
        "score" => {
            drop(tensors.insert("score.weight".into(), Tensor { shape: vec![2, wide], data: vec![1.0; 2 * wide] }))
        }
        _ => assert_eq!(what, ""),
    }
}

/// The golden texts within a vocabulary.
fn within(encoded: &Encoded, vocabulary: i64) -> Encoded {
    let mut fitting = Encoded::new();
    for text in 0..encoded.len() {
        fitting.push(encoded.text(text).iter().map(|id| id % vocabulary));
    }
    fitting
}

#[test]
fn folders_are_read_as_transformers_reads_them() {
    let expected = golden_tensors("reading.safetensors");
    let encoded = texts(&golden_tensors("llama-family.safetensors"));
    let cases: BTreeMap<String, (String, Value, String)> =
        serde_json::from_slice(&fs::read(golden("reading.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 9);
    for (name, (folder, settings, what)) in &cases {
        let dir = tempfile::tempdir().unwrap();
        let extend = |config: &mut Value| {
            config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        };
        altered(folder, dir.path(), |tensors| change(what, tensors), extend);
        let model = load(dir.path());
        let vocabulary = model.vocabulary().unwrap().dense().unwrap().size()[0];
        let encoded = within(&encoded, vocabulary);
        let batch = Batch::new(&encoded, &all(&encoded), Device::Cpu).unwrap();
        let found = logits(&*model, &batch);
        assert_close(name, &found, &expected[name], 1e-4);
        let plain = logits(&*load(&golden(folder)), &batch);
        let changes = !["llama-equal-head", "llama-head-alone", "llama-score"].contains(&name.as_str());
        assert_eq!(distance(&found.data, &plain.data) > 1e-2, changes, "{name}");
    }
}

/// The remark of what was passed over names both files and tensors in one line.
#[test]
fn what_is_passed_over_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    altered("tiny-llama", dir.path(), |tensors| change("score", tensors), |_| {});
    fs::write(dir.path().join("consolidated.safetensors"), "in another layout").unwrap();
    load(dir.path());
    let line = remark(dir.path());
    assert!(line.contains("consolidated.safetensors") && line.contains("score.weight"), "{line}");
    assert_eq!(line.lines().count(), 1);
    assert_eq!(remark(&golden("tiny-llama")), "");
}

fn remark(dir: &Path) -> String {
    rondo_base::Checkpoint::open(dir).unwrap().remark().unwrap_or_default()
}
