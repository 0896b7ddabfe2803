//! Steps of language models, with their weights as numbers and packed.

use std::collections::BTreeSet;

use rondo_methods::{Delta, TensorSet};
use rondo_proto::run_file::Quantise;
use rondo_trainer::models::{self, LoadOptions, PackedWeights, Transformer};
use rondo_trainer::session::Session;
use rondo_trainer::step::{self, Objective, Plan};
use tch::{Device, Kind};

use crate::step::{assert_equal, by_definition, plain, texts};
use crate::support::golden;

const TARGETS: [&str; 3] =
    ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.down_proj"];

fn load(name: &str, quantise: Quantise) -> Box<dyn Transformer> {
    models::load(&golden(name), LoadOptions { quantise, ..LoadOptions::new(Device::Cpu, Kind::Float) }).unwrap()
}

/// Factors of a change of rank 3 of this layer.
fn factors(model: &dyn Transformer, target: &str, seed: u32) -> TensorSet {
    let linears = model.linears();
    let (out, inp) = linears.weight(linears.find(target).unwrap()).size().unwrap();
    TensorSet::from([
        ("a".to_owned(), plain([3, inp as usize], seed)),
        ("b".to_owned(), plain([out as usize, 3], seed + 50)),
    ])
}

fn delta() -> Delta {
    Delta::product(&["b", "a"]).scaled(0.5)
}

fn adapted(model: &dyn Transformer) -> Session<'_> {
    let mut session = Session::language(model, Device::Cpu).unwrap();
    for (seed, target) in (1..).zip(TARGETS) {
        let trained = BTreeSet::from([format!("{target}.a"), format!("{target}.b")]);
        session.attach(target, &delta(), &factors(model, target, seed), &trained).unwrap();
    }
    session
}

#[test]
fn every_way_is_the_loss_by_definition_on_numbers_nf4_and_blocks() {
    let encoded = texts();
    for (name, quantise) in
        [("tiny-llama", Quantise::None), ("tiny-llama", Quantise::Nf4), ("tiny-llama.gguf", Quantise::None)]
    {
        let model = load(name, quantise);
        let session = adapted(&*model);
        assert_eq!(session.is_packed(), (name, quantise) != ("tiny-llama", Quantise::None));
        // One tape over everything, unpacked weights and all.
        let (loss, expected) = by_definition(&session, &encoded, &[2, 0, 4, 1]);
        for checkpoint in [false, true] {
            for (micro_batch, chunk) in [(0, 0), (1, 3), (3, 1), (2, 100)] {
                let plan = Plan { checkpoint, micro_batch, chunk };
                let found = step::gradients(&session, &encoded, &[2, 0, 4, 1], Objective::Tokens, plan).unwrap();
                assert_equal(&format!("{name} {quantise:?} {plan:?}"), &found, loss, &expected, 3e-6);
            }
        }
    }
}

/// What `plan --compare` sets beside a packed base: the same values as numbers, and so the same
/// loss.
#[test]
fn a_base_unpacked_at_load_is_the_packed_one() {
    let encoded = texts();
    for (name, quantise) in [("tiny-llama", Quantise::Nf4), ("tiny-llama.gguf", Quantise::None)] {
        for kind in [Kind::Float, Kind::BFloat16] {
            let load = |packed| {
                models::load(&golden(name), LoadOptions { device: Device::Cpu, kind, quantise, packed }).unwrap()
            };
            let packed = load(PackedWeights::Keep);
            let plain = load(PackedWeights::Unpack);
            for number in 0..packed.linears().names().len() {
                let left = packed.linears().weight(number);
                let right = plain.linears().weight(number);
                assert!(!right.is_packed() && right.kind() == kind, "{name} {kind:?} {number}");
                assert_eq!(left.dense().unwrap(), right.dense().unwrap(), "{name} {kind:?} {number}");
            }
            let packed = adapted(&*packed);
            let plain = adapted(&*plain);
            assert!(packed.is_packed() && !plain.is_packed());
            let step = |session, checkpoint| {
                let plan = Plan { checkpoint, micro_batch: 0, chunk: 0 };
                step::gradients(session, &encoded, &[2, 0, 4, 1], Objective::Tokens, plan).unwrap().loss
            };
            let left = step(&packed, true);
            let right = step(&plain, false);
            assert!((left - right).abs() < 1e-5, "{name} {kind:?}: {left} {right}");
        }
    }
}

/// A published stack is added to a weight of numbers and stays unmerged on a packed one; both are
/// the same change.
#[test]
fn a_stack_on_a_packed_weight_is_what_its_factors_do() {
    let encoded = texts();
    for (name, quantise) in [("tiny-llama", Quantise::None), ("tiny-llama", Quantise::Nf4)] {
        let model = load(name, quantise);
        let base = adapted(&*model);
        let mut merged = adapted(&*model);
        for round in [20, 30] {
            merged.merge(TARGETS[0], &delta(), &factors(&*model, TARGETS[0], round)).unwrap();
        }
        // The same as one attached sum on a model whose layer has no adapter.
        let mut expected = Session::language(&*model, Device::Cpu).unwrap();
        let mut parts = TensorSet::new();
        let mut terms = Vec::new();
        for seed in [1, 20, 30] {
            for (part, tensor) in factors(&*model, TARGETS[0], seed) {
                parts.insert(format!("{part}{seed}"), tensor);
            }
            terms.push(Delta::product(&[&format!("b{seed}"), &format!("a{seed}")]).scaled(0.5));
        }
        expected.attach(TARGETS[0], &Delta::Sum(terms), &parts, &BTreeSet::new()).unwrap();
        for (seed, target) in (2..).zip(&TARGETS[1..]) {
            expected.attach(target, &delta(), &factors(&*model, target, seed), &BTreeSet::new()).unwrap();
        }
        let losses = |session: &Session<'_>| session.token_losses(&encoded, 3, &mut |_| Ok(())).unwrap();
        let found = losses(&merged);
        let expected = losses(&expected);
        let base = losses(&base);
        let mut effect = 0.0;
        for text in 0..3 {
            let off = (found[text].loss - expected[text].loss).abs();
            assert!(off < 1e-4, "{quantise:?} text {text}: off by {off}");
            effect += (found[text].loss - base[text].loss).abs();
        }
        assert!(effect > 1e-3, "{quantise:?}: the stacks do something, {effect}");
    }
}
