//! What can go wrong in the trainer, and how it reads to the daemon.

use std::path::PathBuf;

use rondo_proto::wording::{Advice, SettingKey};
use rondo_trainer_api::memory::{ModelSizesError, TooLarge};
use rondo_trainer_api::work::WorkError;

use crate::device::DeviceError;
use crate::models::ModelError;

/// Why the libtorch trainer refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// The progress callback asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The base model could not be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The device asked for is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// tokenizer.json could not be read, or a text could not be encoded.
    #[error("tokenizer {}: {problem}", .path.display())]
    Tokenizer {
        /// The tokenizer file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A row cannot be used, or the data set's file cannot be read.
    #[error(transparent)]
    Data(#[from] rondo_data::DataError),
    /// The run wants longer inputs than the model has positions for.
    #[error("{}, but the model has {limit} positions; lower {}", SettingKey::MaxTokens.with(.asked), SettingKey::MaxTokens)]
    TooLong {
        /// Tokens asked for.
        asked: usize,
        /// Positions the model has.
        limit: usize,
    },
    /// An adapter target that the loaded model does not run through.
    #[error(
        "the model has no linear layer {target:?} that its output depends on; it has {known} of them, for example {example:?}"
    )]
    UnknownTarget {
        /// The target's full name.
        target: String,
        /// How many linear layers there are.
        known: usize,
        /// One of them.
        example: String,
    },
    /// A language model's task on an encoder.
    #[error(
        "the model has no vocabulary matrix, so it predicts no tokens; tasks other than classification need a causal language model"
    )]
    NoVocabulary,
    /// A tensor that the adapter or the head needs is absent or has the wrong shape.
    #[error("tensor {name:?}: {problem}")]
    Tensor {
        /// Full name.
        name: String,
        /// What was expected and what came.
        problem: String,
    },
    /// There is nothing to train or evaluate on.
    #[error("{what} has no examples; {}", Advice::CheckDataset)]
    NoExamples {
        /// "the training part" or "the held-out part".
        what: &'static str,
    },
    /// A prompt that nothing can follow.
    #[error("the prompt has {tokens} tokens; it takes at least 1 and, with the model's {limit} positions, at most {}: shorten it", .limit.saturating_sub(1))]
    Prompt {
        /// Tokens of the prompt.
        tokens: usize,
        /// Positions the model has.
        limit: usize,
    },
    /// There are texts, but no token of them counts in a loss.
    #[error(
        "no token of {what} counts in the loss: every text is cut before what the model should say; raise {}",
        SettingKey::MaxTokens
    )]
    NothingCounts {
        /// "the held-out part".
        what: &'static str,
    },
    /// References without an answer.
    #[error(
        "no reference of {what} holds an answer by the rule {}; {} where answers are no numbers",
        SettingKey::Answer,
        Advice::AnswerAsText
    )]
    NoAnswer {
        /// "the held-out part".
        what: &'static str,
    },
    /// The loss or a tensor is no longer finite.
    #[error("step {step}: {what} is not finite")]
    NotFinite {
        /// The step, from 1; 0 before the first.
        step: u32,
        /// What went wrong first.
        what: String,
    },
    /// The base model's sizes, by which memory is planned.
    #[error(transparent)]
    ModelSizes(#[from] ModelSizesError),
    /// A training step does not fit into memory.
    #[error(transparent)]
    Memory(#[from] Box<TooLarge>),
    /// The method refused.
    #[error(transparent)]
    Method(#[from] rondo_methods::MethodError),
    /// Noise cannot be added; nothing was released.
    #[error("privacy: {0}")]
    Lattice(#[from] rondo_dp::LatticeError),
    /// Noise cannot be added; nothing was released.
    #[error("privacy: {0}")]
    Mechanism(#[from] rondo_dp::MechanismError),
    /// There is no randomness.
    #[error("privacy: {0}")]
    Entropy(#[from] rondo_dp::EntropyError),
    /// A warm-up that no noise covers, of a run with privacy.
    #[error(
        "the run promises privacy, and its warm-up would tell gradients; it needs init = \"base-svd\", or warm_up_clip under [privacy]"
    )]
    PrivateWarmUp,
    /// A text's gradient is not its own: other texts at the same time move it.
    #[error(
        "private texts cannot be worked on together: on {processor} the gradient of tensor {tensor:?} differs by \
         {difference:e} between several texts at once and one by one; MKL_CBWR=AUTO,STRICT in the environment, set \
         before the start, may give them equal bits"
    )]
    Neighbours {
        /// Full name of the first tensor whose gradients differ.
        tensor: String,
        /// The largest difference between two numbers; NaN where a gradient is not finite.
        difference: f64,
        /// The processor's name.
        processor: String,
    },
    /// libtorch reported an error.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl TrainerError {
    /// The error as the daemon reports it; `dir` is the model's folder, `round` the present round.
    pub(crate) fn into_work_error(self, dir: &std::path::Path, round: u32) -> WorkError {
        match self {
            Self::Interrupted => WorkError::Interrupted,
            Self::Method(error) => WorkError::Method(error),
            Self::NoExamples { .. }
            | Self::Data(_)
            | Self::NothingCounts { .. }
            | Self::NoAnswer { .. }
            | Self::PrivateWarmUp
            | Self::Prompt { .. } => WorkError::Data(self.to_string()),
            Self::Device(error) => WorkError::Device { device: error.device().to_owned(), problem: error.to_string() },
            Self::NotFinite { step, what } => WorkError::NotFinite { round, step, what },
            Self::Memory(error) => WorkError::Memory(error),
            Self::ModelSizes(_)
            | Self::Model(_)
            | Self::Tokenizer { .. }
            | Self::TooLong { .. }
            | Self::NoVocabulary
            | Self::UnknownTarget { .. } => WorkError::Model { dir: dir.to_owned(), problem: self.to_string() },
            Self::Lattice(_)
            | Self::Mechanism(_)
            | Self::Entropy(_)
            | Self::Neighbours { .. }
            | Self::Tensor { .. }
            | Self::Torch(_) => WorkError::Engine(self.to_string()),
        }
    }
}
