//! A method that takes factors of the base out of it, trains them from there on, and asks for two
//! statistics.

use rondo_methods::init::base_factors;
use rondo_methods::tensor::{full_name, parts_of};
use rondo_methods::{AdapterState, Matrix, Statistic, Tensor};
use rondo_proto::run_file::Pooling;
use rondo_trainer::session::{Session, SessionMode};
use rondo_trainer::train::warm_up;
use rondo_trainer_api::work::Trainer;
use tch::Device;

use crate::support::*;

const FACTORS: [&str; 4] = ["head", "tail", "lu", "slice"];

fn run(factors: &str) -> TestRun {
    TestRun::new(&format!("id = \"shifted\"\nrank = 4\nfactors = \"{factors}\""))
}

/// Logits of the golden texts.
fn logits(session: &Session<'_>) -> Vec<f32> {
    let encoded = golden_ids(&golden_tensors("tiny-bert.safetensors"), 2.0);
    session.predict(&encoded, encoded.len(), &mut |_| Ok(())).unwrap().concat()
}

/// One update holds the factors of every weight and the gradient of every probe, each as it is
/// alone.
#[test]
fn one_warm_up_brings_every_statistic() {
    let encoder = encoder(&tiny());
    for factors in FACTORS {
        let run = run(factors);
        let steps = run.job.warm_up();
        let update = run.statistic(&mut trainer());
        assert_eq!(update.examples, run.data.train().len() as u64);
        assert!(update.train_loss > 0.0);
        assert_eq!(update.tensors.len(), 4 * run.job.targets().len());
        let Statistic::Base(kind) = steps[0].statistic else { panic!("{:?}", steps[0].statistic) };
        for (index, target) in run.job.targets().iter().enumerate() {
            let weight = encoder.linears().weight(encoder.linears().find(&target.name).unwrap()).dense().unwrap();
            let expected = base_factors::compute(kind, &plain(&weight).to_matrix(), 4).unwrap();
            let parts = parts_of(&update.tensors, &target.name);
            expected.iter().for_each(|(part, tensor)| assert_eq!(&parts[part], tensor, "{factors} {part}"));
            assert_eq!(steps[1].probes[index].target, index);
            assert!(parts["rows"].data.iter().any(|x| *x != 0.0));
        }
        // Nothing but factors, and nothing but gradients.
        let work = run.work(0, run.job.warm_up_state(4).unwrap());
        let alone = warm_up::base_factors(&*encoder, &work, kind, &steps[0], &mut go_on).unwrap();
        assert_eq!((alone.tensors.len(), alone.train_loss), (3 * run.job.targets().len(), 0.0));
    }
}

/// The change of the weight and the offset cancel at the start; later the model is the base with
/// both in its weights.
#[test]
fn the_model_stands_on_the_offset() {
    let mut trainer = trainer();
    let encoder = encoder(&tiny());
    for factors in FACTORS {
        let mut solo = SingleClient::start(run(factors), &mut trainer);
        let state = solo.state(1);
        assert_eq!(state.merged.len(), solo.run.job.targets().len());
        let job = solo.run.job.clone();
        let of_state = |state: &AdapterState| {
            logits(
                &Session::of_state(&*encoder, Device::Cpu, &job, state, Pooling::Mean, SessionMode::Evaluate).unwrap(),
            )
        };
        let base = logits(&Session::new(&*encoder, Device::Cpu, &state.tensors, Pooling::Mean).unwrap());
        assert!(distance(&of_state(&state), &base) < 1e-4, "{factors}");
        let bare = AdapterState { merged: Vec::new(), ..state.clone() };
        // The smallest triplets change little, the largest much.
        let least = if factors == "head" { 1e-3 } else { 0.0 };
        assert!(distance(&of_state(&bare), &base) > least, "{factors}: the factors alone are a change");

        let update = trainer.train(&solo.work(1), &mut go_on).unwrap();
        assert!(update.tensors.keys().all(|name| name.ends_with(".m") || name.starts_with("head.")));
        solo.publish(1, rondo_methods::Kind::Train, &update.tensors);
        let after = solo.state(2);
        assert_eq!(after.merged, state.merged);
        let mut merged = Session::new(&*encoder, Device::Cpu, &after.tensors, Pooling::Mean).unwrap();
        for (index, target) in job.targets().iter().enumerate() {
            let change: Matrix = job.dense_delta(&after, index).unwrap();
            let parts = [("change".to_owned(), Tensor::from_matrix(&change))].into();
            merged.merge(&target.name, &rondo_methods::Delta::mat("change"), &parts).unwrap();
        }
        let off = distance(&of_state(&after), &logits(&merged));
        assert!(off < 1e-4, "{factors}: off by {off}");
        let name = full_name(&job.targets()[0].name, "m");
        assert_ne!(after.tensors[&name], state.tensors[&name]);
    }
}
