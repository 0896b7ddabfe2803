//! The trainer itself: it keeps the last base model in memory and carries out one piece of work
//! after another.

use std::path::{Path, PathBuf};

use rondo_methods::{StartAdapter, Statistic};
use rondo_proto::run_file::{Dtype, Quantise};
use rondo_proto::v1;
use rondo_trainer_api::limits::Limits;
use rondo_trainer_api::memory::{self, ModelSizes, Workload, machine};
use rondo_trainer_api::work::{LocalUpdate, MakeTrainer, OnProgress, Protection, Trainer, Work, WorkError};
use tch::{Device, Kind};

use crate::device::DeviceChoice;
use crate::error::TrainerError;
use crate::models::{self, LoadOptions, Transformer};
use crate::neighbours::{self, PrivateBatches, Trials};
use crate::session::{Session, SessionMode};
use crate::step::Plan;
use crate::tasks;
use crate::text::load_tokenizer::load_tokenizer;
use crate::text::tokens::Tokens;
use crate::train::{local, warm_up};

/// How the daemon makes a trainer on the thread that will own it, by the device, threads and memory
/// of `[limits]`. The processor is tried here: where neighbours in a batch move a text's gradient,
/// private training works on one text at a time. A GPU is tried by the run's own model alone, when
/// there is private work.
///
/// # Errors
/// Not a device, or a GPU that is not there; found here, before there is any work.
pub fn maker(limits: &Limits) -> Result<MakeTrainer, TrainerError> {
    let choice: DeviceChoice = limits.device.parse()?;
    let device = choice.open()?;
    let threads = (limits.threads > 0).then_some(limits.threads as usize);
    set_threads(threads);
    let batches = match device {
        Device::Cpu => PrivateBatches::after(neighbours::try_processor(device))?,
        _ => PrivateBatches::Together,
    };
    let limits = limits.clone();
    let problem =
        move |error: TrainerError| WorkError::Device { device: choice.to_string(), problem: error.to_string() };
    Ok(Box::new(move || {
        let trainer = LibtorchTrainer::new(choice, threads).map_err(problem)?;
        Ok(Box::new(trainer.with_limits(limits.clone()).with_private_batches(batches)))
    }))
}

/// The number of CPU threads of one operation; `None` leaves libtorch's default, all cores.
fn set_threads(threads: Option<usize>) {
    if let Some(threads) = threads {
        tch::set_num_threads(threads.clamp(1, 1024) as i32);
    }
}

/// Trains and evaluates with libtorch. It keeps the last base model and the token ids of the last
/// data sets.
pub struct LibtorchTrainer {
    device: Device,
    loaded: Option<Loaded>,
    limits: Limits,
    trials: Trials,
}

/// A base model in memory.
pub struct Loaded {
    dir: PathBuf,
    digest: String,
    kind: Kind,
    quantise: Quantise,
    /// The base model, frozen.
    pub model: Box<dyn Transformer>,
    /// Its tokenizer.
    pub tokens: Tokens,
}

impl LibtorchTrainer {
    /// A trainer on a device. `threads` is the number of CPU threads of one operation; `None`
    /// leaves libtorch's default, all cores.
    ///
    /// # Errors
    /// A GPU was asked for that is not there.
    pub fn new(device: DeviceChoice, threads: Option<usize>) -> Result<Self, TrainerError> {
        let device = device.open()?;
        set_threads(threads);
        Ok(Self { device, loaded: None, limits: Limits::default(), trials: Trials::default() })
    }

    /// The same, with what `[limits]` says of memory, micro-batches and checkpoints.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same, with what a trial of the processor allows private steps.
    #[must_use]
    pub fn with_private_batches(self, batches: PrivateBatches) -> Self {
        Self { trials: Trials::after(batches), ..self }
    }

    /// How this work's steps are carried out: the fastest mode that fits.
    fn plan(&self, work: &Work) -> Result<Plan, TrainerError> {
        let initial = work.job.start_adapter().map(StartAdapter::message);
        let workload = Workload::new(ModelSizes::read(&work.model_dir)?, &work.run, &work.job, work.rank);
        let workload = workload.starting_from(initial.as_ref(), &work.base, &work.job);
        // A GPU's memory is another; there `[limits]` alone speaks.
        let room = if self.device == Device::Cpu { machine::room() } else { None };
        let choice = memory::choose(&workload, &self.limits, room)?;
        tracing::debug!(peak = choice.estimate.peak, mode = ?choice.mode, "memory of a training step");
        // A private batch has no fixed size, so its parts have.
        let whole = choice.mode.micro_batch >= workload.batch && !workload.copies;
        let micro_batch = if whole { 0 } else { choice.mode.micro_batch as usize };
        Ok(Plan { checkpoint: choice.mode.checkpoint, micro_batch, chunk: 0 })
    }

    /// The device it computes on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The model in `dir`, loaded unless it is in memory already. `digest` tells different contents
    /// of one folder apart; the base's linear layers are packed as `quantise` says.
    ///
    /// # Errors
    /// A model or a tokenizer that cannot be loaded.
    pub fn model(
        &mut self,
        dir: &Path,
        digest: &str,
        dtype: Dtype,
        quantise: Quantise,
    ) -> Result<&mut Loaded, TrainerError> {
        let kind = match dtype {
            Dtype::F32 => Kind::Float,
            Dtype::Bf16 => Kind::BFloat16,
        };
        let same = |loaded: &Loaded| {
            (loaded.dir.as_path(), loaded.digest.as_str(), loaded.kind, loaded.quantise)
                == (dir, digest, kind, quantise)
        };
        if !self.loaded.as_ref().is_some_and(same) {
            self.loaded = None; // never two models in memory
        }
        match &mut self.loaded {
            Some(loaded) => Ok(loaded),
            empty => Ok(empty.insert(Loaded {
                dir: dir.to_owned(),
                digest: digest.to_owned(),
                kind,
                quantise,
                model: models::load(dir, LoadOptions { quantise, ..LoadOptions::new(self.device, kind) })?,
                tokens: load_tokenizer(dir)?,
            })),
        }
    }

    fn prepare(&mut self, work: &Work) -> Result<(Device, &mut Loaded), TrainerError> {
        let device = self.device;
        let train = &work.run.train;
        let loaded = self.model(&work.model_dir, &work.base.digest, train.dtype, train.quantise)?;
        let asked = work.run.task.max_tokens;
        let limit = loaded.model.max_positions();
        if asked > limit {
            return Err(TrainerError::TooLong { asked, limit });
        }
        Ok((device, loaded))
    }

    fn run_warm_up(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<LocalUpdate, TrainerError> {
        let steps = self.plan(work)?;
        let (device, loaded) = self.prepare(work)?;
        // The daemon refuses such a run; here nothing is read should it not have.
        if work.run.privacy.is_some() && work.job.warm_up_reads_data() {
            return Err(TrainerError::PrivateWarmUp);
        }
        let mut all: Option<LocalUpdate> = None;
        for asked in work.job.warm_up() {
            let update = match asked.statistic {
                Statistic::Base(factors) => warm_up::base_factors(&*loaded.model, work, factors, &asked, progress)?,
                Statistic::Gradient => {
                    let rows = loaded.tokens.rows(work.data.train(), &work.run.task)?;
                    let pooling = work.run.task.pooling;
                    let session = Session::of_probe(&*loaded.model, device, &work.job, &asked, &work.state, pooling)?;
                    warm_up::gradient(&session, work, asked.examples, &rows, steps, progress)?
                }
            };
            all = Some(match all {
                Some(before) => warm_up::joined(before, update, asked.statistic),
                None => update,
            });
        }
        let Some(update) = all else {
            let problem = format!("method {} asks for no warm-up", work.job.method().id());
            return Err(TrainerError::Tensor { name: "warm-up".into(), problem });
        };
        Ok(LocalUpdate { tensors: local::upload(work, rondo_methods::Kind::WarmUp, update.tensors)?, ..update })
    }

    fn run_training(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<LocalUpdate, TrainerError> {
        let before = match work.evaluate_before {
            true => Some(self.run_evaluation(work, progress)?),
            false => None,
        };
        let steps = self.plan(work)?;
        let mut trials = self.trials.clone();
        let (device, loaded) = self.prepare(work)?;
        let rows = loaded.tokens.rows(work.data.train(), &work.run.task)?;
        let pooling = work.run.task.pooling;
        let session = Session::of_state(&*loaded.model, device, &work.job, &work.state, pooling, SessionMode::Train)?;
        let steps = match work.protection {
            Protection::Examples(_) => trials.plan(&session, work, steps)?,
            Protection::None | Protection::WholeChange { .. } => steps,
        };
        let update = local::train(&session, work, &rows, steps, progress)?;
        self.trials = trials;
        Ok(LocalUpdate { before, ..update })
    }

    fn run_evaluation(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<v1::Evaluation, TrainerError> {
        let (device, loaded) = self.prepare(work)?;
        let session = Session::of_state(
            &*loaded.model,
            device,
            &work.job,
            &work.state,
            work.run.task.pooling,
            SessionMode::Evaluate,
        )?;
        let task = &work.run.task;
        let part = work.data.held_out();
        let limit = work.max_eval_examples;
        Ok(tasks::evaluate(&session, &mut loaded.tokens, task, part, limit, progress)?.evaluation)
    }
}

impl Trainer for LibtorchTrainer {
    fn warm_up(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<LocalUpdate, WorkError> {
        self.run_warm_up(work, progress).map_err(|error| error.into_work_error(&work.model_dir, work.round))
    }

    fn train(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<LocalUpdate, WorkError> {
        self.run_training(work, progress).map_err(|error| error.into_work_error(&work.model_dir, work.round))
    }

    fn evaluate(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<v1::Evaluation, WorkError> {
        self.run_evaluation(work, progress).map_err(|error| error.into_work_error(&work.model_dir, work.round))
    }
}
