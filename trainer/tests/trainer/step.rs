//! The gradients of a step do not depend on how it is carried out, and are those of the loss as it
//! is written down.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rondo_methods::{Delta, Tensor as Plain, TensorSet};
use rondo_proto::run_file::Pooling;
use rondo_trainer::batch::{Batch, Encoded};
use rondo_trainer::error::TrainerError;
use rondo_trainer::models::{LayerCache, LinearHook, Linears, LoadOptions, Packed, Transformer, Weight};
use rondo_trainer::session::{Session, SessionMode};
use rondo_trainer::step::loss::{self, PredictedTokens};
use rondo_trainer::step::{self, Gradients, Objective, Plan};
use rondo_trainer::train::optim::{AdamW, AdamWConfig};
use tch::{Device, Kind, Reduction, Tensor};

use crate::support::*;

const WORDS: i64 = 61;

/// The tiny encoder with a vocabulary matrix: what a language model is to the step.
pub(crate) struct Speaker {
    body: Box<dyn Transformer>,
    words: Weight,
}

impl Speaker {
    pub(crate) fn new(kind: Kind, packed: bool) -> Self {
        let body = rondo_trainer::models::load(&tiny(), LoadOptions::new(Device::Cpu, kind)).unwrap();
        let words = numbers(&[WORDS, body.hidden_size() as i64], 0.3, 5).to_kind(kind);
        let words = match packed {
            true => Weight::Packed { packed: Box::new(Held(words)), kind, device: Device::Cpu },
            false => Weight::Dense(words),
        };
        Self { body, words }
    }
}

impl Transformer for Speaker {
    fn hidden_size(&self) -> usize {
        self.body.hidden_size()
    }
    fn max_positions(&self) -> usize {
        self.body.max_positions()
    }
    fn linears(&self) -> &Linears {
        self.body.linears()
    }
    fn layers(&self) -> usize {
        self.body.layers()
    }
    fn embed(&self, batch: &Batch) -> Result<Tensor, TrainerError> {
        self.body.embed(batch)
    }
    fn layer(
        &self,
        number: usize,
        x: &Tensor,
        batch: &Batch,
        hook: &dyn LinearHook,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor, TrainerError> {
        self.body.layer(number, x, batch, hook, cache)
    }
    // Not the identity, so that what follows the layers has a gradient of its own.
    fn finish(&self, x: &Tensor) -> Result<Tensor, TrainerError> {
        Ok(x.f_layer_norm([self.hidden_size() as i64], None::<&Tensor>, None::<&Tensor>, 1e-5, false)?)
    }
    fn vocabulary(&self) -> Option<&Weight> {
        Some(&self.words)
    }
}

/// A packed matrix that is none.
struct Held(Tensor);

impl Packed for Held {
    fn size(&self) -> (i64, i64) {
        self.0.size2().unwrap()
    }
    fn bytes(&self) -> usize {
        0
    }
    fn dense(&self, kind: Kind, _: Device) -> Result<Tensor, TrainerError> {
        Ok(self.0.f_to_kind(kind)?)
    }
    fn rows(&self, rows: &[i64], kind: Kind, _: Device) -> Result<Tensor, TrainerError> {
        Ok(self.0.f_index_select(0, &Tensor::from_slice(rows))?.f_to_kind(kind)?)
    }
}

/// Fixed numbers in (-scale, scale).
fn numbers(size: &[i64], scale: f32, seed: u32) -> Tensor {
    let count: i64 = size.iter().product();
    let mix = |index: i64| (index as u32 ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b) >> 8;
    let data: Vec<f32> = (0..count).map(|i| (mix(mix(i).into()) as f32 / 8_388_608.0 - 1.0) * scale).collect();
    Tensor::from_slice(&data).view(size)
}

pub(crate) fn plain(size: [usize; 2], seed: u32) -> Plain {
    let tensor = numbers(&[size[0] as i64, size[1] as i64], 0.2, seed);
    Plain { shape: size.to_vec(), data: Vec::try_from(&tensor.view(-1)).unwrap() }
}

/// Texts of several lengths; the last has no token that counts.
pub(crate) fn texts() -> Encoded {
    let mut encoded = Encoded::new();
    for (text, length) in [7, 3, 12, 1, 9, 5].into_iter().enumerate() {
        let ids: Vec<i64> = (0..length).map(|place| 5 + (text * 13 + place * 7) as i64 % 30).collect();
        let counts: Vec<bool> = (0..length).map(|place| text < 5 && place > 0 && (place + text) % 3 != 0).collect();
        encoded.push_counted(&ids, &counts);
    }
    encoded
}

/// Low-rank adapters on three layers, both factors trained and neither of them zero.
fn adapt(session: &mut Session<'_>) {
    let linears = session.model().linears();
    let targets =
        ["encoder.layer.0.attention.self.query", "encoder.layer.1.intermediate.dense", "encoder.layer.1.output.dense"];
    for (seed, target) in (1..).zip(targets) {
        let (out, inp) = linears.weight(linears.find(target).unwrap()).size().unwrap();
        let parts = TensorSet::from([
            ("a".to_owned(), plain([3, inp as usize], seed)),
            ("b".to_owned(), plain([out as usize, 3], 10 + seed)),
        ]);
        let trained = BTreeSet::from([format!("{target}.a"), format!("{target}.b")]);
        session.attach(target, &Delta::product(&["b", "a"]).scaled(0.5), &parts, &trained).unwrap();
    }
}

pub(crate) fn speaking(model: &Speaker) -> Session<'_> {
    let mut session = Session::language(model, Device::Cpu).unwrap();
    adapt(&mut session);
    session
}

/// The definition: all logits at once, one tape.
pub(crate) fn by_definition(session: &Session<'_>, encoded: &Encoded, indices: &[usize]) -> (f64, Vec<Tensor>) {
    let batch = Batch::new(encoded, indices, Device::Cpu).unwrap();
    let states = session.model().forward(&batch, session.adapters()).unwrap();
    let logits = states.matmul(&session.model().vocabulary().unwrap().dense().unwrap().tr()).to_kind(Kind::Float);
    let mut rows = Vec::new();
    let mut tokens = Vec::new();
    let mut first = 0;
    for &index in indices {
        for place in 1..encoded.text(index).len() {
            if encoded.counts(index)[place] {
                rows.push(first + place as i64 - 1);
                tokens.push(encoded.text(index)[place]);
            }
        }
        first += encoded.text(index).len() as i64;
    }
    let picked = logits.index_select(0, &Tensor::from_slice(&rows));
    let loss = picked.cross_entropy_loss::<Tensor>(&Tensor::from_slice(&tokens), None, Reduction::Mean, -100, 0.0);
    let leaves: Vec<&Tensor> = session.trained().iter().map(|(_, leaf)| leaf).collect();
    let gradients = Tensor::run_backward(&[&loss], &leaves, false, false);
    (loss.double_value(&[]), gradients)
}

pub(crate) fn assert_equal(what: &str, found: &Gradients, loss: f64, expected: &[Tensor], tolerance: f64) {
    assert!((found.loss - loss).abs() <= tolerance * loss.abs(), "{what}: loss {} and {loss}", found.loss);
    assert_eq!(found.tensors.len(), expected.len());
    let largest = expected.iter().map(|tensor| tensor.abs().max().double_value(&[])).fold(0.0, f64::max);
    for (place, (left, right)) in found.tensors.iter().zip(expected).enumerate() {
        let off = (left - right).abs().max().double_value(&[]);
        assert!(largest > 0.0 && off <= tolerance * largest, "{what}: tensor {place} is off by {off} of {largest}");
        assert_eq!(left.kind(), Kind::Float, "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_language_step_is_the_loss_by_definition_however_it_is_carried_out(
        checkpoint: bool, packed: bool, micro_batch in 0..8_usize, chunk in 0..12_usize,
        order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(), take in 3..=6_usize,
    ) {
        let model = Speaker::new(Kind::Float, packed);
        let encoded = texts();
        let session = speaking(&model);
        let indices = &order[..take];
        let (loss, expected) = by_definition(&session, &encoded, indices);
        let plan = Plan { checkpoint, micro_batch, chunk };
        let found = step::gradients(&session, &encoded, indices, Objective::Tokens, plan).unwrap();
        assert_equal(&format!("{plan:?}"), &found, loss, &expected, 2e-6);
        let counting: usize = indices.iter().map(|&text| encoded.counts(text).iter().filter(|c| **c).count()).sum();
        prop_assert_eq!(found.units as usize, counting);
    }

    #[test]
    fn a_chunked_loss_and_its_pull_are_those_of_cross_entropy(rows in 1..40_i64, chunk in 0..50_usize, packed: bool) {
        let model = Speaker::new(Kind::Float, packed);
        let states = numbers(&[rows, model.hidden_size() as i64], 2.0, 77).set_requires_grad(true);
        let tokens: Vec<i64> = (0..rows).map(|row| row * 17 % WORDS).collect();
        let logits = states.matmul(&model.words.dense().unwrap().tr());
        let target = Tensor::from_slice(&tokens);
        let sum = logits.cross_entropy_loss::<Tensor>(&target, None, Reduction::Sum, -100, 0.0);
        let expected = Tensor::run_backward(&[&(&sum * 0.25)], &[&states], false, false).remove(0);
        let (found, gradient) = loss::loss_and_gradient(&model.words, &states.detach(), &tokens, &vec![0.25; tokens.len()], chunk).unwrap();
        prop_assert!((found - 0.25 * sum.double_value(&[])).abs() < 1e-4);
        prop_assert!((&gradient - &expected).abs().max().double_value(&[]) < 1e-6);
        let each = loss::token_losses(&model.words, &states.detach(), &tokens, chunk).unwrap();
        let likeliest = Vec::<i64>::try_from(&logits.argmax(1, false)).unwrap();
        prop_assert!((each.iter().map(|token| token.loss).sum::<f64>() - 4.0 * found).abs() < 1e-4);
        prop_assert!(each.iter().zip(&likeliest).zip(&tokens).all(|((token, best), is)| token.hit == (best == is)));
    }
}

#[test]
fn a_classifier_step_is_the_same_both_ways_and_in_micro_batches() {
    let run = TestRun::new("id = \"fedit\"\nrank = 4");
    let mut state = SingleClient::start(run.clone(), &mut trainer()).state(1);
    stir(&run.job, &mut state);
    let model = encoder(&tiny());
    let session = Session::of_state(&*model, Device::Cpu, &run.job, &state, Pooling::Mean, SessionMode::Train).unwrap();
    let mut encoded = Encoded::new();
    let labels = [1, 0, 1, 1, 0];
    [4, 9, 2, 6, 11].into_iter().for_each(|length| encoded.push((0..length).map(|place| 5 + place * 3 % 20)));
    let indices = [0, 1, 2, 3, 4];
    let loss = mean_loss(&session.logits(&encoded, &indices).unwrap(), &labels);
    let leaves: Vec<&Tensor> = session.trained().iter().map(|(_, leaf)| leaf).collect();
    let expected = Tensor::run_backward(&[&loss], &leaves, false, false);
    for checkpoint in [false, true] {
        for micro_batch in [0, 1, 2, 3, 5, 9] {
            let plan = Plan { checkpoint, micro_batch, chunk: 0 };
            let found = step::gradients(&session, &encoded, &indices, Objective::Labels(&labels), plan).unwrap();
            assert_equal(&format!("{plan:?}"), &found, loss.double_value(&[]), &expected, 2e-6);
        }
    }
}

/// One CPU thread or two: equal steps give equal bits, and so do the two ways.
#[test]
fn both_ways_give_equal_bits() {
    let model = Speaker::new(Kind::Float, false);
    let encoded = texts();
    let session = speaking(&model);
    let bits = |checkpoint| -> Vec<Vec<f32>> {
        let plan = Plan { checkpoint, micro_batch: 2, chunk: 4 };
        let found = step::gradients(&session, &encoded, &[0, 1, 2, 3, 4], Objective::Tokens, plan).unwrap();
        found.tensors.iter().map(|tensor| Vec::try_from(&tensor.contiguous().view(-1)).unwrap()).collect()
    };
    assert_eq!(bits(false), bits(false));
    assert_eq!(bits(false), bits(true));
}

#[test]
fn bf16_computing_keeps_the_adapter_and_its_gradients_in_f32_and_comes_close() {
    let encoded = texts();
    let full = Speaker::new(Kind::Float, false);
    let half = Speaker::new(Kind::BFloat16, false);
    let exact = speaking(&full);
    let rough = speaking(&half);
    let indices = [0, 1, 2, 3, 4];
    let run = |session: &Session<'_>, checkpoint| {
        step::gradients(session, &encoded, &indices, Objective::Tokens, Plan { checkpoint, micro_batch: 0, chunk: 5 })
            .unwrap()
    };
    let exact = run(&exact, false);
    for checkpoint in [false, true] {
        let found = run(&rough, checkpoint);
        assert_ne!(found.loss, exact.loss);
        assert_equal("bf16", &found, exact.loss, &exact.tensors, 0.05);
    }
}

#[test]
fn without_a_counting_token_there_is_no_loss_and_no_gradient() {
    let model = Speaker::new(Kind::Float, false);
    let encoded = texts();
    let session = speaking(&model);
    let found = step::gradients(&session, &encoded, &[5, 3], Objective::Tokens, Plan::default()).unwrap();
    assert_eq!((found.loss, found.units), (0.0, 0));
    assert!(found.tensors.iter().all(|tensor| !tensor.defined()));
}

#[test]
fn token_losses_are_given_text_by_text() {
    let model = Speaker::new(Kind::Float, false);
    let encoded = texts();
    let session = speaking(&model);
    let mut ticks = Vec::new();
    let each = session
        .token_losses(&encoded, 6, &mut |done| {
            ticks.push(done);
            Ok(())
        })
        .unwrap();
    for (text, found) in each.iter().enumerate().take(5).filter(|(text, _)| *text != 3) {
        let (mean, _) = by_definition(&session, &encoded, &[text]);
        let count = PredictedTokens::count(&encoded, text);
        assert_eq!(found.tokens, count);
        assert!((found.loss - mean * count as f64).abs() < 1e-4, "text {text}: {found:?} {mean}");
    }
    assert_eq!((each[5].tokens, each[5].loss), (0, 0.0));
    assert_eq!(ticks.last(), Some(&6));
}

#[test]
fn an_encoder_is_no_language_model() {
    let error = Session::language(&*encoder(&tiny()), Device::Cpu).err().unwrap();
    assert!(error.to_string().contains("causal language model"), "{error}");
}

/// What lies outside of a block that trains is used, and stays as it is; what lies inside moves as
/// if it were alone.
#[test]
fn only_the_leading_block_trains() {
    let model = Speaker::new(Kind::Float, false);
    let encoded = texts();
    let whole = speaking(&model);
    let mut session = speaking(&model);
    let name = session.trained()[0].0.clone();
    session.train_block(&name, &[2, 5]).unwrap();
    let run = |session: &Session<'_>| {
        step::gradients(session, &encoded, &[0, 2], Objective::Tokens, Plan::default()).unwrap().tensors
    };
    let all = run(&whole);
    let part = run(&session);
    assert_eq!(part[0].size(), [2, 5]);
    assert_eq!(part[0], all[0].narrow(0, 0, 2).narrow(1, 0, 5));
    assert_eq!(part[1..], all[1..]);
    let before = session.trained()[0].1.detach().copy();
    let config = AdamWConfig { weight_decay: 0.5, ..AdamWConfig::default() };
    let mut optimiser = AdamW::new(config, session.parameters().unwrap()).unwrap();
    optimiser.step(&part).unwrap();
    let moved = (session.trained()[0].1.detach() - before).ne(0.0);
    assert_eq!(moved.narrow(0, 0, 2).narrow(1, 0, 5).sum(Kind::Int64).int64_value(&[]), 10);
    assert_eq!(moved.sum(Kind::Int64).int64_value(&[]), 10);
    assert_eq!(session.trained_values().unwrap()[&name].shape, [2, 5]);
    for (name, sizes) in [(name.as_str(), [4, 5]), (name.as_str(), [0, 5]), ("nobody", [1, 1])] {
        assert!(session.train_block(name, &sizes).is_err(), "{name} {sizes:?}");
    }
}
