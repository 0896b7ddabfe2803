//! Training learns, stops when asked, and gives equal bits for equal work.

use std::ops::ControlFlow;

use rondo_methods::{Kind, TensorSet};
use rondo_proto::run_file::Dtype;
use rondo_trainer::LibtorchTrainer;
use rondo_trainer_api::work::{Trainer, WorkError};

use crate::support::*;

const TARGETS: [&str; 2] = ["query", "value"];

#[test]
fn every_method_learns_the_tiny_task() {
    let mut trainer = trainer();
    for id in ["fedit", "ffa-lora", "flora", "fed-sb"] {
        let run = TestRun::with(&format!("id = \"{id}\"\nrank = 8"), &TARGETS, 2e-2, 80);
        let mut solo = SingleClient::start(run, &mut trainer);
        let start = trainer.evaluate(&solo.work(1), &mut go_on).unwrap();
        assert_eq!(start.examples as usize, solo.run.data.held_out().len());
        for round in 1..=2 {
            let mut work = solo.work(round);
            work.evaluate_before = true;
            let update = trainer.train(&work, &mut go_on).unwrap();
            assert_eq!(update.examples as usize, solo.run.data.train().len());
            if round == 1 {
                assert_eq!(update.before.as_ref(), Some(&start));
            }
            solo.publish(round, Kind::Train, &update.tensors);
        }
        let end = trainer.evaluate(&solo.work(3), &mut go_on).unwrap();
        assert!(end.loss < 0.5 * start.loss && end.accuracy > 0.9, "{id}: {start:?} {end:?}");
    }
}

#[test]
fn equal_work_gives_equal_bits() {
    let update = |trainer: &mut LibtorchTrainer, id: &str, client: &str, round| -> TensorSet {
        let solo = SingleClient::start(TestRun::new(&format!("id = \"{id}\"\nrank = 4")), trainer);
        let mut work = solo.work(round);
        work.client = client.to_owned();
        trainer.train(&work, &mut go_on).unwrap().tensors
    };
    for id in ["fedit", "ffa-lora", "flora", "fed-sb"] {
        let mut first = trainer();
        let once = update(&mut first, id, "solo", 1);
        // After other work in the same trainer, and in a new one.
        assert_ne!(update(&mut first, id, "other", 1), once, "{id}: another client sees other batches");
        assert_ne!(update(&mut first, id, "solo", 2), once, "{id}: another round sees other batches");
        assert_eq!(update(&mut first, id, "solo", 1), once, "{id}");
        assert_eq!(update(&mut trainer(), id, "solo", 1), once, "{id}");
    }
}

#[test]
fn progress_is_told_and_can_stop() {
    let mut trainer = trainer();
    let solo = SingleClient::start(TestRun::new("id = \"fedit\"\nrank = 4"), &mut trainer);
    let mut reported = Vec::new();
    trainer
        .train(&solo.work(1), &mut |progress| {
            reported.push(progress);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(reported.len(), 8);
    for (index, progress) in reported.iter().enumerate() {
        assert_eq!((progress.step, progress.steps), (index as u32 + 1, 8));
        assert!(progress.loss > 0.0);
    }
    let mut seen = 0;
    let mut stop = |_| {
        seen += 1;
        ControlFlow::Break(())
    };
    let stopped =
        [trainer.train(&solo.work(1), &mut stop).map(|_| ()), trainer.evaluate(&solo.work(1), &mut stop).map(|_| ())];
    assert!(stopped.iter().all(|outcome| matches!(outcome, Err(WorkError::Interrupted))), "{stopped:?}");
    assert_eq!(seen, 2);
}

#[test]
fn bf16_computing_comes_close_and_still_learns() {
    let mut trainer = trainer();
    let run = TestRun::with("id = \"ffa-lora\"\nrank = 8", &TARGETS, 2e-2, 100);
    let mut half = run.clone();
    let mut file = (*run.run).clone();
    file.train.dtype = Dtype::Bf16;
    half.run = file.into();
    let full = SingleClient::start(run, &mut trainer);
    let half = SingleClient::start(half, &mut trainer);
    let exact = trainer.evaluate(&full.work(1), &mut go_on).unwrap();
    let close = trainer.evaluate(&half.work(1), &mut go_on).unwrap();
    assert!((exact.loss - close.loss).abs() < 0.02 && exact.loss != close.loss, "{exact:?} {close:?}");
    let update = trainer.train(&half.work(1), &mut go_on).unwrap();
    assert!(update.train_loss < 0.5 * close.loss, "{} {close:?}", update.train_loss);
}

#[test]
fn an_evaluation_can_be_cut_short() {
    let mut trainer = trainer();
    let solo = SingleClient::start(TestRun::new("id = \"fedit\"\nrank = 4"), &mut trainer);
    let mut work = solo.work(1);
    work.max_eval_examples = Some(7);
    assert_eq!(trainer.evaluate(&work, &mut go_on).unwrap().examples, 7);
    work.max_eval_examples = Some(100_000);
    assert_eq!(trainer.evaluate(&work, &mut go_on).unwrap().examples as usize, work.data.held_out().len());
}

#[test]
fn a_diverging_run_is_refused_with_the_step() {
    let mut trainer = trainer();
    let run = TestRun::with("id = \"fedit\"\nrank = 4", &TARGETS, 1e30, 20);
    let solo = SingleClient::start(run, &mut trainer);
    let error = trainer.train(&solo.work(1), &mut go_on).unwrap_err();
    assert!(matches!(error, WorkError::NotFinite { round: 1, step: 2.., .. }), "{error}");
}
