//! What the daemon asks of a trainer, free of libtorch: plain data in, plain data out.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use rondo_data::Dataset;
use rondo_dp::ExamplePlan;
use rondo_methods::{AdapterState, Instance, Job, TensorSet};
use rondo_proto::run_file::RunFile;
use rondo_proto::v1;
use rondo_proto::wording::SettingKey;

use crate::memory::TooLarge;

/// One piece of work: everything a trainer needs, already downloaded, checked and parsed.
#[derive(Clone)]
pub struct Work {
    /// The run, resolved against its base model.
    pub job: Job,
    /// The run file: task, local steps, batch, learning rate, seed.
    pub run: Arc<RunFile>,
    /// The base model that the run names, as the coordinator described it and as the local files
    /// were checked against.
    pub base: Arc<v1::BaseModel>,
    /// Folder of the base model: config.json, *.safetensors, tokenizer.json.
    pub model_dir: PathBuf,
    /// The client's own examples, with labels as indices into the run's list.
    pub data: Arc<Dataset>,
    /// This client's name; part of the key of everything that is drawn for it.
    pub client: String,
    /// The round, from 1; 0 is the warm-up.
    pub round: u32,
    /// Rank r of this client's adapter.
    pub rank: usize,
    /// Where the adapter stands. For a warm-up: its tensors are the start values of the probe.
    pub state: AdapterState,
    /// Measure the state as received before training.
    pub evaluate_before: bool,
    /// What training does for the run's privacy terms.
    pub protection: Protection,
    /// At most so many held-out examples are evaluated (the first ones of [`Dataset::held_out`]);
    /// `None` = all.
    pub max_eval_examples: Option<usize>,
}

impl Work {
    /// The adapter that this work is about.
    pub fn instance(&self) -> Instance<'_> {
        Instance::in_round(self.round).with_rank(self.rank).of_client(&self.client)
    }
}

/// What training does for a run's privacy terms.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Protection {
    /// Nothing: the run has none.
    #[default]
    None,
    /// Unit "example": every example's gradient is clipped and every step's sum noised.
    Examples(ExamplePlan),
    /// Unit "client": the whole change is scaled down to this L2 norm. The noise is the
    /// coordinator's.
    WholeChange {
        /// The clip of the round.
        clip: f64,
    },
}

/// What training (or a warm-up) brings back.
#[derive(Debug, Clone)]
pub struct LocalUpdate {
    /// The tensors to send, by full name: at least those of [`Job::upload_manifest`]; others stay
    /// here.
    pub tensors: TensorSet,
    /// Number of this client's training examples, by which its update weighs; 0 with privacy, as
    /// are loss and seconds.
    pub examples: u64,
    /// Mean training loss over the last steps (or over all examples of a warm-up), in nats.
    pub train_loss: f64,
    /// Wall-clock seconds spent on training alone.
    pub seconds: f64,
    /// The state as received, measured before training; present iff [`Work::evaluate_before`].
    pub before: Option<v1::Evaluation>,
}

/// How far the work is; reported to the coordinator with each heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Progress {
    /// Steps done.
    pub step: u32,
    /// Steps in all.
    pub steps: u32,
    /// Loss of the latest step, in nats; 0 before the first.
    pub loss: f64,
}

/// Called by a trainer after every step (and every batch of an evaluation); `Break` asks it to stop
/// at once with [`WorkError::Interrupted`].
pub type OnProgress<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// Why a piece of work failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The progress callback asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The base model could not be read or is not what the run needs.
    #[error("base model in {}: {problem}", .dir.display())]
    Model {
        /// The model's folder.
        dir: PathBuf,
        /// What is wrong and how to fix it.
        problem: String,
    },
    /// The data cannot be trained or evaluated on.
    #[error("data set: {0}")]
    Data(String),
    /// The device asked for is not there.
    #[error("device {device:?}: {problem}")]
    Device {
        /// As the configuration names it.
        device: String,
        /// What is wrong and how to fix it.
        problem: String,
    },
    /// The loss or a tensor is no longer finite.
    #[error(
        "round {round}, step {step}: {what} is not finite; a lower {} or {} may help",
        SettingKey::Lr.quoted(), SettingKey::MaxGradNorm.quoted()
    )]
    NotFinite {
        /// The round.
        round: u32,
        /// The step, from 1.
        step: u32,
        /// What went wrong first.
        what: String,
    },
    /// The method refused.
    #[error(transparent)]
    Method(#[from] rondo_methods::MethodError),
    /// A training step does not fit into memory.
    #[error(transparent)]
    Memory(#[from] Box<TooLarge>),
    /// The engine (libtorch) failed.
    #[error("engine: {0}")]
    Engine(String),
    /// The trainer panicked: a bug of ours, or of libtorch.
    #[error("the trainer panicked: {0}")]
    Panicked(String),
}

/// Trains and evaluates. An implementation lives on one owned thread (libtorch's tensors are not
/// `Sync`); the daemon makes it there and sends it work one piece at a time.
pub trait Trainer {
    /// Computes the method's warm-up statistic over the training examples.
    ///
    /// # Errors
    /// As of [`Trainer::train`].
    fn warm_up(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<LocalUpdate, WorkError>;

    /// Trains from [`Work::state`] for the run's local steps.
    ///
    /// # Errors
    /// A model, data set or device that cannot be used, too little memory, a loss that is not
    /// finite, an interruption.
    fn train(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<LocalUpdate, WorkError>;

    /// Evaluates [`Work::state`] on the held-out examples.
    ///
    /// # Errors
    /// As of [`Trainer::train`], and no examples.
    fn evaluate(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<v1::Evaluation, WorkError>;
}

/// Makes a trainer; called on its thread, at the first piece of work and again after a panic.
pub type MakeTrainer = Box<dyn FnMut() -> Result<Box<dyn Trainer>, WorkError> + Send>;
