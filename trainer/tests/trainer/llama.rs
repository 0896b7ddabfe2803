//! The Llama family computes what Hugging Face's does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rondo_methods::file::TensorFile;
use rondo_methods::{Tensor, TensorSet, file};
use rondo_proto::run_file::Dtype;
use rondo_trainer::adapters::Adapters;
use rondo_trainer::batch::{Batch, Encoded};
use rondo_trainer::models::{self, LayerCache, LoadOptions, Transformer};
use serde_json::Value;
use tch::{Device, Kind};

use crate::support::*;

/// The models of `make_llama.py`.
const FAMILY: [&str; 5] = ["tiny-llama", "tiny-mistral", "tiny-qwen2", "tiny-qwen3", "tiny-llama-biased"];

pub(crate) fn load(dir: &Path) -> Box<dyn Transformer> {
    models::load(dir, LoadOptions::new(Device::Cpu, Kind::Float)).unwrap()
}

/// The golden texts: `ids` end to end, `lengths` of each.
pub(crate) fn texts(goldens: &TensorSet) -> Encoded {
    let mut encoded = Encoded::new();
    let mut ids = goldens["ids"].data.iter().map(|&id| id as i64);
    for &length in &goldens["lengths"].data {
        encoded.push(ids.by_ref().take(length as usize));
    }
    encoded
}

pub(crate) fn all(encoded: &Encoded) -> Vec<usize> {
    (0..encoded.len()).collect()
}

/// Logits of every token, `[n, vocabulary]`.
pub(crate) fn logits(model: &dyn Transformer, batch: &Batch) -> Tensor {
    let states = model.forward(batch, &Adapters::none()).unwrap();
    to_vocabulary(model, &states)
}

pub(crate) fn to_vocabulary(model: &dyn Transformer, states: &tch::Tensor) -> Tensor {
    plain(&states.linear::<tch::Tensor>(&model.vocabulary().unwrap().dense().unwrap(), None))
}

/// Keys and values of every layer.
pub(crate) fn empty_cache(model: &dyn Transformer) -> Vec<LayerCache> {
    (0..model.layers()).map(|_| LayerCache::default()).collect()
}

/// Logits of every token behind what the cache holds.
pub(crate) fn cached(model: &dyn Transformer, batch: &Batch, cache: &mut [LayerCache]) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let mut x = model.embed(batch).unwrap();
    for (number, cache) in cache.iter_mut().enumerate() {
        x = model.layer(number, &x, batch, &Adapters::none(), Some(cache)).unwrap();
    }
    to_vocabulary(model, &model.finish(&x).unwrap())
}

pub(crate) fn plain(tensor: &tch::Tensor) -> Tensor {
    let shape = tensor.size().iter().map(|&n| n as usize).collect();
    let flat = tensor.detach().to_kind(Kind::Float).contiguous().view(-1);
    Tensor { shape, data: Vec::<f32>::try_from(&flat).unwrap() }
}

/// A copy of a golden model with its tensors and its config.json changed.
pub(crate) fn altered(name: &str, dir: &Path, change: impl Fn(&mut TensorSet), config: impl Fn(&mut Value)) {
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
        // Prompts of different length, then parts of different length, then one token of each at a
        // time.
        let mut cache = empty_cache(&*model);
        let mut done = [0_usize; 4];
        for step in [[2, 10, 1, 4], [2, 7, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]] {
            let mut part = Encoded::new();
            let mut places = Vec::new();
            for (text, length) in step.into_iter().enumerate() {
                // A text that is at its end goes on with meaningless numbers, which are not
                // compared.
                let from = done[text];
                let ids = encoded.text(text);
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
        let model = models::load(&golden(name), LoadOptions::new(Device::Cpu, Kind::BFloat16)).unwrap();
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
