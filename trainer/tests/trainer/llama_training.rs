//! The Llama family trains as it does with PyTorch and peft.

use rondo_methods::Delta;
use rondo_methods::TensorSet;
use rondo_trainer::adapters::{Adapters, Parts};
use rondo_trainer::batch::{Batch, Encoded};
use rondo_trainer::models::Transformer;
use rondo_trainer::train::optim::{AdamW, AdamWConfig};
use tch::Device;

use crate::llama::{all, load, plain, texts};
use crate::support::*;

/// Mean of -log p over the tokens that count (`counts` by token of the batch), each from the state
/// before it.
fn token_loss(
    model: &dyn Transformer,
    batch: &Batch,
    encoded: &Encoded,
    counts: &[f32],
    adapters: &Adapters,
) -> tch::Tensor {
    let mut from = Vec::new();
    let mut targets = Vec::new();
    let mut start = 0;
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

/// Attaches a delta to every target of the golden file; gives the tensors that train, by their name
/// in it.
fn adapters(
    model: &dyn Transformer,
    goldens: &TensorSet,
    delta: &Delta,
    trained: &[&str],
) -> (Adapters, Vec<(String, tch::Tensor)>) {
    let mut adapters = Adapters::none();
    let mut parameters = Vec::new();
    for target in goldens.keys().filter_map(|name| name.strip_suffix(".R")).filter(|name| !name.starts_with("grad.")) {
        let mut parts = Parts::new();
        for part in ["lora_A", "lora_B", "R"] {
            let name = format!("{target}.{part}");
            let shape = &goldens[&format!("{target}.{part}")].shape;
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
    let encoded = texts(&goldens);
    let counts = &goldens["counts"].data;
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
