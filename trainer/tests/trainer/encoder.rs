//! The encoder computes what Hugging Face's does.

use std::collections::{BTreeMap, BTreeSet};

use rondo_methods::{Delta, Tensor};
use rondo_trainer::adapters::Adapters;
use rondo_trainer::batch::{Batch, Encoded};
use rondo_trainer::models::Transformer;
use rondo_trainer::session::Session;
use rondo_trainer::text::tokens::Tokens;
use tch::Device;

use crate::support::*;

fn hidden(encoder: &dyn Transformer, encoded: &Encoded) -> (Tensor, Batch) {
    let texts: Vec<usize> = (0..encoded.len()).collect();
    let batch = Batch::new(encoded, &texts, Device::Cpu).unwrap();
    (plain(&encoder.forward(&batch, &Adapters::none()).unwrap()), batch)
}

#[test]
fn tiny_hidden_states_equal_transformers() {
    let goldens = golden_tensors("tiny-bert.safetensors");
    let encoded = golden_ids(&goldens, 2.0);
    let (hidden, _) = hidden(&*encoder(&tiny()), &encoded);
    assert_eq!(encoded.len(), 4);
    assert!(distance(&hidden.data, &goldens["hidden"].data) < 1e-5);
}

#[test]
fn minilm_hidden_states_equal_transformers() {
    let goldens = golden_tensors("minilm.safetensors");
    let encoded = golden_ids(&goldens, 101.0);
    let encoder = encoder(&minilm());
    let (hidden, batch) = hidden(&*encoder, &encoded);
    let off = distance(&hidden.data, &goldens["hidden"].data);
    assert!(off < 1e-4, "off by {off}");
    let mean = batch.mean(&encoder.forward(&batch, &Adapters::none()).unwrap()).unwrap();
    assert!(distance(&plain(&mean).data, &goldens["mean"].data) < 1e-4);
}

#[test]
fn texts_become_the_same_tokens() {
    let file = rondo_methods::file::TensorFile::open(&golden("minilm.safetensors")).unwrap();
    let texts: Vec<String> = serde_json::from_str(&file.metadata()["texts"]).unwrap();
    let expected = golden_ids(&golden_tensors("minilm.safetensors"), 101.0);
    let mut tokens = Tokens::load(&minilm()).unwrap();
    assert_eq!(tokens.encode(texts.iter().map(String::as_str), 24).unwrap(), expected);
    assert_eq!(tokens.encode(["word ".repeat(100).as_str()], 5).unwrap().text(0).len(), 5);
}

#[test]
fn logits_loss_and_gradients_equal_torch() {
    let goldens = golden_tensors("tiny-bert.safetensors");
    let encoded = golden_ids(&goldens, 2.0);
    let encoder = encoder(&tiny());
    for (word, pooling) in POOLINGS {
        let mut session = Session::new(&*encoder, Device::Cpu, &golden_head(&goldens), pooling).unwrap();
        // A dense change of a weight, at zero: its gradient is the weight's own.
        let prefix = format!("{word}.grad.encoder.");
        let targets: Vec<String> = goldens.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
        assert_eq!(targets.len(), 8);
        for name in &targets {
            let target = name.trim_start_matches(&format!("{word}.grad."));
            let change = BTreeMap::from([("change".to_owned(), Tensor::zeros(&goldens[name].shape))]);
            let trained = BTreeSet::from([format!("{target}.change")]);
            session.attach(target, &Delta::mat("change"), &change, &trained).unwrap();
        }
        let logits = session.logits(&encoded, &[0, 1, 2, 3]).unwrap();
        assert_close("logits", &plain(&logits), &goldens[&format!("{word}.logits")], 1e-5);
        let loss = mean_loss(&logits, &[1, 0, 0, 1]);
        assert_close("loss", &plain(&loss.view(1)), &goldens[&format!("{word}.loss")], 1e-5);
        let parameters: Vec<&tch::Tensor> = session.trained().iter().map(|(_, tensor)| tensor).collect();
        let gradients = tch::Tensor::run_backward(&[&loss], &parameters, false, false);
        for ((name, _), gradient) in session.trained().iter().zip(gradients) {
            let target = name.trim_end_matches(".change");
            assert_close(target, &plain(&gradient), &goldens[&format!("{word}.grad.{target}")], 1e-4);
        }
    }
}

#[test]
fn a_text_is_the_same_alone_and_in_a_batch() {
    let goldens = golden_tensors("tiny-bert.safetensors");
    let encoded = golden_ids(&goldens, 2.0);
    let encoder = encoder(&tiny());
    for (_, pooling) in POOLINGS {
        let session = Session::new(&*encoder, Device::Cpu, &golden_head(&goldens), pooling).unwrap();
        let together = session.predict(&encoded, encoded.len(), &mut |_| Ok(())).unwrap();
        for (index, logits) in together.iter().enumerate() {
            let alone = plain(&session.logits(&encoded, &[index]).unwrap());
            assert!(distance(&alone.data, logits) < 1e-5);
        }
        let order = plain(&session.logits(&encoded, &[3, 1]).unwrap());
        assert!(distance(&order.data, &[together[3].clone(), together[1].clone()].concat()) < 1e-5);
    }
}

#[test]
fn batches_by_length_hold_every_text_once() {
    let mut encoded = Encoded::new();
    for length in [5, 1, 30, 7, 7, 2, 64, 3] {
        encoded.push(0..length);
    }
    let batches = encoded.by_length(8, 20);
    let mut all = batches.concat();
    all.sort_unstable();
    assert_eq!(all, (0..8).collect::<Vec<_>>());
    for batch in &batches {
        let longest = batch.iter().map(|&index| encoded.text(index).len()).max().unwrap();
        assert!(batch.len() == 1 || batch.len() * longest <= 20, "{batches:?}");
    }
    assert_eq!(encoded.by_length(2, 20).concat(), vec![1, 0]);
}
