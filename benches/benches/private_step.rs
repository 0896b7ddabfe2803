//! What privacy costs a training step: fed-sb on the demo's encoder with the same 32 texts in every batch, plain and with
//! a gradient per example, clipped and noised. The ratio of the two is what counts.
#![allow(missing_docs)] // criterion's macros make a public function.

use std::ops::ControlFlow;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use rondo_benches::{example_run, long_text, work};
use rondo_dp::ExamplePlan;
use rondo_methods::Job;
use rondo_trainer::LibtorchTrainer;
use rondo_trainer::device::DeviceChoice;
use rondo_trainer::train::local_simulation::LocalSimulation;
use rondo_trainer_api::work::{Protection, Trainer, Work};

const BATCH: u32 = 32;
/// Steps of one measured round, so that building the session weighs little.
const STEPS: u32 = 4;

/// A first round of fed-sb on factors of the base.
fn first_round(trainer: &mut LibtorchTrainer) -> Work {
    let mut run = example_run("private/fed-sb").expect("the examples are part of the repository and tested");
    (run.train.local_steps, run.train.batch) = (STEPS, BATCH);
    let rows = (0..BATCH).map(|number| (long_text(number), number % 2));
    let start = |job: &Job| job.warm_up_state(job.rank()).expect("the state of a warm-up");
    let mut work = work(run, rows, start);
    let mut solo = LocalSimulation::new(work.job.clone()).expect("there is room for a temporary folder");
    let factors = trainer.warm_up(&work, &mut |_| ControlFlow::Continue(())).expect("the base has factors");
    solo.publish(0, &factors.tensors).expect("a warm-up of one client");
    (work.round, work.state) = (1, solo.state(1).expect("the first round follows the warm-up"));
    work
}

fn private_step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fed-sb, four steps of 32 texts");
    group.sample_size(10).measurement_time(Duration::from_secs(30));
    let mut trainer = LibtorchTrainer::new(DeviceChoice::Cpu, None).expect("there is always a CPU");
    let plain = first_round(&mut trainer);
    let plan = ExamplePlan {
        clip: 1.0,
        noise_multiplier: 1.0,
        // Everybody is in every batch, as in the plain step.
        sampling_rate: 1.0,
        expected_batch: BATCH.into(),
        steps: STEPS,
        rounds: 1,
        epsilon: 100.0,
        delta: 1e-5,
    };
    let private = Work { protection: Protection::Examples(plan), ..plain.clone() };
    for (name, work) in [("plain", &plain), ("private", &private)] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                trainer.train(work, &mut |_| ControlFlow::Continue(())).expect("the example trains on these texts")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, private_step);
criterion_main!(benches);
