//! How long one local step takes on the demo's encoder: 32 texts
//! of up to 64 tokens, forward, backward, AdamW.
#![allow(missing_docs)] // criterion's macros make a public function.

use std::ops::ControlFlow;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use rondo_benches::{example_run, long_text, work};
use rondo_methods::Job;
use rondo_trainer::LibtorchTrainer;
use rondo_trainer::device::DeviceChoice;
use rondo_trainer::train::local_simulation::CLIENT;
use rondo_trainer_api::work::{Trainer, Work};

/// Methods whose adapter needs no warm-up; the others
/// differ in the shapes of the same few products.
const METHODS: [&str; 2] = ["ffa-lora", "fedit"];

fn first_round(method: &str) -> Work {
    let mut run = example_run(method).expect("the examples are part of the repository and tested");
    run.train.local_steps = 1;
    let start = |job: &Job| job.state(1, CLIENT, job.rank(), None, &[]).expect("a first round starts from the seed");
    work(run, (0..256).map(|number| (long_text(number), 0)), start)
}

fn training(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("training step");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    let mut trainer = LibtorchTrainer::new(DeviceChoice::Cpu, None).expect("there is always a CPU");
    for method in METHODS {
        let work = first_round(method);
        group.bench_function(method, |bench| {
            bench.iter(|| {
                trainer.train(&work, &mut |_| ControlFlow::Continue(())).expect("the example trains on these texts")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, training);
criterion_main!(benches);
