//! The run file: everything a run is, in TOML. It travels as text and is parsed the same way everywhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::v1::BaseModel;

/// A parsed run file. See `examples/` for commented ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// A short name; the run id is made from it.
    pub name: String,
    /// The base model every client must hold.
    pub base: BaseRef,
    /// What is learnt.
    pub task: Task,
    /// How the adapter is parametrised and aggregated.
    pub method: MethodChoice,
    /// Local training.
    pub train: Train,
    /// Round policy.
    pub rounds: Rounds,
    /// A server optimiser; absent = the mean is published as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    /// Measuring at one named client; absent = everybody on their own held-out data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationChoice>,
    /// Absent means no privacy, and every report says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacyChoice>,
    /// How tensors travel.
    #[serde(default)]
    pub wire: Wire,
}

/// A registered base model and the digest that is expected of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseRef {
    /// Name under which it was registered with `rondo base add`.
    pub model: String,
    /// Digest over config, weights and tokenizer. When absent the registered one is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// What the model learns to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The kind of task.
    pub kind: TaskKind,
    /// Name of the data set; each client maps it to files of its own.
    pub dataset: String,
    /// Class labels, in the order of the head's rows; of classification alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Longest input in tokens; longer texts are cut at the end.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// Whether the classifier head is trained and averaged, or stays as seeded.
    #[serde(default)]
    pub head: HeadMode,
    /// How token states become one vector.
    #[serde(default)]
    pub pooling: Pooling,
    /// Which tokens a language model learns to predict.
    #[serde(default)]
    pub loss_on: LossOn,
    /// How instructions become text.
    #[serde(default)]
    pub template: Template,
    /// How options of a multiple choice compare.
    #[serde(default)]
    pub option_score: OptionScore,
    /// What of a generated text is the answer (exact-answer).
    #[serde(default)]
    pub answer: AnswerRule,
    /// Most tokens generated for one answer (exact-answer).
    #[serde(default = "default_max_new_tokens")]
    pub max_new_tokens: usize,
}

fn default_max_tokens() -> usize {
    128
}
fn default_max_new_tokens() -> usize {
    128
}

/// Kinds of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// One label out of a fixed list for a text.
    Classification,
    /// The next token of a text; measured by loss and share of tokens foretold.
    CausalLm,
    /// One of a question's options, by their likelihood; trained on the right one.
    MultipleChoice,
    /// An answer that is generated and compared; trained as causal-lm.
    ExactAnswer,
}

impl TaskKind {
    /// As a run file writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::CausalLm => "causal-lm",
            Self::MultipleChoice => "multiple-choice",
            Self::ExactAnswer => "exact-answer",
        }
    }

    /// True for the kinds that need a language model; the others need an encoder with a head.
    pub fn needs_language_model(self) -> bool {
        self != Self::Classification
    }
}

/// Which tokens count in a language model's loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossOn {
    /// What the model should say: completions, and the assistant's turns of a chat.
    #[default]
    Completion,
    /// Every token.
    All,
}

/// How the columns of an instruction row become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Template {
    /// The base model's chat template for rows of `messages`, plain text for the others.
    #[default]
    Auto,
    /// Plain text with headings, as Alpaca's; a prompt and a completion follow one another as they are.
    Plain,
    /// The base model's chat template for every row.
    Chat,
}

/// How the options of a multiple choice compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptionScore {
    /// By the mean log-likelihood of their tokens, so that long options are not at a loss.
    #[default]
    PerToken,
    /// By the log-likelihood of the whole option.
    Sum,
}

/// What of a generated text, and of the reference, is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerRule {
    /// The number behind the last `####`, as in GSM8K; without one, the last number.
    #[default]
    Number,
    /// The whole text, without case, punctuation and spaces at its ends.
    Text,
}

/// What happens to the classifier head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadMode {
    /// Trained by clients, averaged by the coordinator.
    #[default]
    Train,
    /// Kept as seeded.
    Freeze,
}

/// How token states become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Mean over tokens that are not padding.
    #[default]
    Mean,
    /// State of the first token.
    Cls,
}

/// The method and its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodChoice {
    /// Registry id, for example "fed-sb".
    pub id: String,
    /// Adapter rank r; a client with a smaller limit may train with less where the method can mix ranks.
    pub rank: usize,
    /// LoRA's alpha; the scale is alpha / r. Absent takes alpha = r.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Linear layers to adapt: last part of the name, or any dotted suffix of it.
    pub targets: Vec<String>,
    /// Options of this method alone; the method checks them.
    #[serde(flatten)]
    pub options: BTreeMap<String, toml::Value>,
}

/// Local training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// Optimiser steps per round.
    pub local_steps: u32,
    /// Examples per step.
    pub batch: u32,
    /// Learning rate of AdamW.
    pub lr: f64,
    /// Decoupled weight decay.
    #[serde(default)]
    pub weight_decay: f64,
    /// Gradient-norm limit over all trained tensors; absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<f64>,
    /// Weight mu of FedProx's pull `mu/2 ||x - x_global||^2` towards the adapter as received; 0 = none.
    #[serde(default)]
    pub proximal: f64,
    /// Compute type.
    #[serde(default)]
    pub dtype: Dtype,
    /// Whether clients keep the base's linear layers quantised; it changes what is computed, so it is the run's to say.
    #[serde(default)]
    pub quantise: Quantise,
    /// Seed of everything in the run that is drawn; noise for privacy is not.
    #[serde(default)]
    pub seed: u64,
}

/// Round policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rounds {
    /// Training rounds.
    pub count: u32,
    /// Clients selected per round.
    pub cohort: u32,
    /// Fewest accepted updates that make a round valid.
    pub quorum: u32,
    /// Further clients selected as spares; the first `cohort` updates count.
    #[serde(default)]
    pub over_select: u32,
    /// Seconds from the start of a phase until the round goes on with what it has.
    #[serde(default = "default_deadline_s")]
    pub deadline_s: u64,
    /// Seconds to wait for the others once quorum is reached.
    #[serde(default = "default_grace_s")]
    pub grace_s: u64,
    /// Evaluate the published adapter every so many rounds; the last one always is. 0 = never.
    #[serde(default = "default_eval_every")]
    pub eval_every: u32,
    /// How updates weigh.
    #[serde(default)]
    pub weighting: Weighting,
    /// Largest L2 norm of an update that the door lets in; absent = any finite one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_update_norm: Option<f64>,
    /// Failed attempts at one round before the run ends as failed.
    #[serde(default = "default_max_attempts")]
    pub max_attempts: u32,
    /// Which round's adapter the finished run hands out.
    #[serde(default)]
    pub keep: Keep,
    /// A round whose held-out loss lies above the best so far by more than this share of it is taken back: the next one
    /// starts from the best. Absent = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<f64>,
}

fn default_deadline_s() -> u64 {
    600
}
fn default_grace_s() -> u64 {
    30
}
fn default_eval_every() -> u32 {
    1
}
fn default_max_attempts() -> u32 {
    3
}

/// How the base's linear layers are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantise {
    /// As the files have them.
    #[default]
    None,
    /// 4-bit NormalFloat in blocks of 64 (QLoRA, Dettmers et al. 2023), made at load.
    Nf4,
}

/// Which round's adapter a finished run hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The last one's.
    #[default]
    Last,
    /// That of the round with the lowest held-out loss.
    Best,
}

/// What the coordinator does with the mean of the updates before it publishes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// The optimiser.
    pub optimiser: ServerOptimiser,
    /// Its step size eta.
    #[serde(default = "default_server_lr")]
    pub lr: f64,
    /// Decay of the first moment.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay of the second moment; of FedAdam and FedYogi.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// Adaptivity tau, added to the root of the second moment; of FedAdam and FedYogi.
    #[serde(default = "default_tau")]
    pub tau: f64,
}

fn default_server_lr() -> f64 {
    1.0
}
fn default_beta1() -> f64 {
    0.9
}
fn default_beta2() -> f64 {
    0.99
}
fn default_tau() -> f64 {
    1e-3
}

/// Server optimisers (Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2; Hsu et al. 2019). The mean
/// update Delta = mean - global is their negative gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerOptimiser {
    /// m <- beta1 m + Delta; x <- x + lr m.
    FedAvgM,
    /// Adam over Delta, without bias correction.
    FedAdam,
    /// As FedAdam with Yogi's second moment.
    FedYogi,
}

/// Measuring on one client's data instead of everybody's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationChoice {
    /// The client that measures.
    pub client: String,
    /// Its data set, for example a public one; the whole of it counts as held out.
    pub dataset: String,
}

/// How updates weigh in the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// By example count.
    #[default]
    Examples,
    /// All alike.
    Uniform,
}

/// The privacy asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrivacyChoice {
    /// What is protected: "example" or "client".
    pub unit: String,
    /// Budget.
    pub epsilon: f64,
    /// Failure probability.
    pub delta: f64,
    /// Clip norm.
    pub clip: f64,
}

/// How tensors travel.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Wire {
    /// Number format of adapter tensors on the wire.
    #[serde(default)]
    pub dtype: Dtype,
}

/// Number formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// IEEE single precision.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    /// Bytes of one number.
    pub fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// Why a run file was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RunFileError {
    /// Not TOML, or a value of the wrong kind.
    #[error("run file: {0}")]
    Syntax(String),
    /// A key nobody knows.
    #[error("run file: unknown key `{key}`{}", .nearest.as_ref().map(|near| format!(", did you mean `{near}`?")).unwrap_or_default())]
    UnknownKey {
        /// Dotted path of the key.
        key: String,
        /// The known key most like it.
        nearest: Option<String>,
    },
    /// A value outside what makes sense.
    #[error("run file: `{key}` {problem}")]
    Value {
        /// Dotted path of the key.
        key: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

impl RunFile {
    /// Reads a run file: TOML without unknown keys, every value in its range. What is under `[method]` beside the known
    /// keys is left to the method, and what depends on the base model to `check_base` and the method.
    pub fn parse(text: &str) -> Result<Self, RunFileError> {
        let syntax = |error: toml::de::Error| RunFileError::Syntax(error.to_string().trim_end().to_owned());
        let mut unknown = None;
        let document = toml::Deserializer::parse(text).map_err(syntax)?;
        let parsed = serde_ignored::deserialize(document, |path| {
            unknown.get_or_insert_with(|| keys::dotted(&path));
        });
        // An unknown key is told first: a misspelt one would otherwise show as a missing one.
        if let Some(key) = unknown.or_else(|| parsed.is_err().then(|| keys::first_unknown(text)).flatten()) {
            let nearest = keys::nearest_known(&key);
            return Err(RunFileError::UnknownKey { key, nearest });
        }
        let run: Self = parsed.map_err(syntax)?;
        checks::values(&run)?;
        Ok(run)
    }

    /// Checks what depends on the base model alone: that it is the one that is meant, and that inputs fit it.
    pub fn check_base(&self, base: &BaseModel) -> Result<(), RunFileError> {
        checks::base(self, base)
    }
}

mod checks;
mod keys;
#[cfg(test)]
mod tests;
