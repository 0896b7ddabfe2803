//! How long one local step takes on the demo's encoder: 32 texts of up to 64 tokens, forward, backward, AdamW.
#![allow(missing_docs)] // criterion's macros make a public function.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use rondo_benches::{example_run, model_dir};
use rondo_client::data::Dataset;
use rondo_client::trainer::LibtorchTrainer;
use rondo_client::trainer::device::DeviceChoice;
use rondo_client::work::{Trainer, Work};
use rondo_methods::{Job, Registry};
use rondo_proto::base;

/// Methods whose adapter needs no warm-up; the others differ in the shapes of the same few products.
const METHODS: [&str; 2] = ["ffa-lora", "fedit"];

fn work(method: &str) -> Work {
    let dir = model_dir();
    let base = base::describe(&dir, "minilm-l6").expect("`cargo xtask setup` fetches the model");
    let mut run = example_run(method).expect("the examples are part of the repository and tested");
    run.train.local_steps = 1;
    let job = Job::new(&Registry::builtin(), &run, &base).expect("the example fits the model");
    let state = job.state(1, "bench", job.rank(), None, &[]).expect("a first round starts from the seed");
    // Every text fills all tokens, so the time does not hang on the draw of the batch.
    let text = |number: usize| (format!("{number} {}", "a rather long and winding review of it ".repeat(10)), 0);
    let data = Dataset::of("reviews", &run.task.labels, (0..256).map(text), 0.0);
    Work {
        rank: job.rank(),
        job,
        run: Arc::new(run),
        base: Arc::new(base),
        model_dir: dir,
        data: Arc::new(data),
        client: "bench".to_owned(),
        round: 1,
        state,
        privacy: None,
        evaluate_before: false,
        max_eval_examples: None,
    }
}

fn training(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("training step");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    let mut trainer = LibtorchTrainer::new(DeviceChoice::Cpu, None).expect("there is always a CPU");
    for method in METHODS {
        let work = work(method);
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
