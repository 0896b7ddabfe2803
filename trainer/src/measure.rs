//! One training step on random tokens, to see what it takes.

use std::path::Path;
use std::time::Instant;

use rondo_methods::{AdapterState, Instance, Job, MethodError, Start, TensorSet};
use rondo_proto::run_file::{Dtype, RunFile};
use rondo_trainer_api::memory::{StepChoice, Workload, machine};
use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::LibtorchTrainer;
use crate::batch::Encoded;
use crate::device::DeviceChoice;
use crate::error::TrainerError;
use crate::models::{self, LoadOptions, PackedWeights};
use crate::session::{Session, SessionMode};
use crate::step::{self, Objective, Plan};
use crate::text::load_tokenizer::load_tokenizer;
use crate::train::optim::{AdamW, AdamWConfig};

/// What a measured step saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Most memory that the process ever held until model and tokenizer were loaded, bytes.
    pub loaded: u64,
    /// Most memory that the process ever held, bytes (VmHWM).
    pub peak: u64,
    /// Mean loss of the batch, nats.
    pub loss: f64,
    /// Seconds of the step.
    pub seconds: f64,
}

/// Loads the model, attaches a fresh adapter and takes one step on texts of full length. Equal
/// arguments give equal tokens, so that losses compare.
///
/// # Errors
/// A model that cannot be loaded, and whatever libtorch refuses.
pub fn one_step(
    model: &Path,
    run: &RunFile,
    job: &Job,
    workload: &Workload,
    choice: &StepChoice,
    packed: PackedWeights,
    threads: u32,
) -> Result<Measured, TrainerError> {
    let device = LibtorchTrainer::new(DeviceChoice::Cpu, (threads > 0).then_some(threads as usize))?.device();
    let kind = match run.train.dtype {
        Dtype::F32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
    };
    let base = models::load(model, LoadOptions { device, kind, quantise: run.train.quantise, packed })?;
    // Not used here, but in memory whenever a run trains.
    let _tokens = load_tokenizer(model)?;
    let loaded = machine::peak().unwrap_or(0);
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let state = fresh(job, &mut draw).map_err(TrainerError::Method)?;
    let session = Session::of_state(&*base, device, job, &state, run.task.pooling, SessionMode::Train)?;
    let mut encoded = Encoded::new();
    for _ in 0..workload.batch {
        // The same words whatever the batch is split into; the first ones of a vocabulary are often
        // special.
        let ids: Vec<i64> = (0..workload.max_tokens).map(|_| draw.below(workload.sizes.vocabulary) as i64).collect();
        match workload.sizes.is_language() {
            true => encoded.push_counted(&ids, &(0..ids.len()).map(|place| place > 0).collect::<Vec<_>>()),
            false => encoded.push(ids),
        }
    }
    let texts: Vec<usize> = (0..encoded.len()).collect();
    let labels: Vec<i64> = texts.iter().map(|&text| text as i64 % 2).collect();
    let objective = if workload.sizes.is_language() { Objective::Tokens } else { Objective::Labels(&labels) };
    let plan = Plan { checkpoint: choice.mode.checkpoint, micro_batch: choice.mode.micro_batch as usize, chunk: 0 };
    let mut optimiser = AdamW::new(AdamWConfig { lr: run.train.lr, ..AdamWConfig::default() }, session.parameters()?)?;
    let started = Instant::now();
    let found = step::gradients(&session, &encoded, &texts, objective, plan)?;
    optimiser.step(&found.tensors)?;
    let seconds = started.elapsed().as_secs_f64();
    let _update = session.trained_values()?;
    Ok(Measured { loaded, peak: machine::peak().unwrap_or(0), loss: found.loss, seconds })
}

/// An adapter at its start; what a warm-up would bring is drawn.
fn fresh(job: &Job, draw: &mut Draw) -> Result<AdapterState, MethodError> {
    let rank = job.rank();
    let mut tensors: TensorSet = job.initial(1, "plan", rank);
    for named in job
        .layout(Instance::in_round(1).with_rank(rank).of_client("plan"))
        .iter()
        .filter(|named| named.spec.start == Start::Artefact)
    {
        let mut tensor = rondo_methods::Tensor::zeros(&named.spec.shape);
        tensor.data.fill_with(|| (draw.below(2001) as f32 - 1000.0) / 20_000.0);
        tensors.insert(named.name.clone(), tensor);
    }
    let merged = job.offsets(&tensors)?;
    Ok(AdapterState { round: 1, client: "plan".to_owned(), rank, tensors, merged })
}

/// A 64-bit xorshift (Marsaglia 2003): equal on every machine.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}
