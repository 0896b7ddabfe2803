//! The run file: everything a run is, in TOML. It travels as text and is parsed the same way
//! everywhere.

mod checks;
mod keys;
mod rounds;
mod task;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use rounds::{EvaluationChoice, Keep, Rounds, Server, ServerOptimiser, Weighting};
pub use task::{AnswerRule, HeadMode, LossOn, OptionScore, Pooling, Task, TaskKind, Template, trimmed};

use crate::digest::Digest;
use crate::v1::BaseModel;
use crate::wording;

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

/// The method and its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodChoice {
    /// Registry id, for example "fed-sb".
    pub id: String,
    /// Adapter rank r; a client with a smaller limit may train with less where the method can mix
    /// ranks.
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
    /// Weight mu of FedProx's pull `mu/2 ||x - x_global||^2` towards the adapter as received;
    /// 0 = none.
    #[serde(default)]
    pub proximal: f64,
    /// Compute type.
    #[serde(default)]
    pub dtype: Dtype,
    /// Whether clients keep the base's linear layers quantised; it changes what is computed, so it
    /// is the run's to say.
    #[serde(default)]
    pub quantise: Quantise,
    /// Seed of everything in the run that is drawn; noise for privacy is not.
    #[serde(default)]
    pub seed: u64,
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
    /// Standard deviation of the noise in units of the clip. Absent: who adds the noise (each data
    /// owner, or the coordinator) takes the least that spends `epsilon` over all rounds. Given, the
    /// run ends when the next round would cost more than `epsilon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_multiplier: Option<f64>,
    /// Of unit "client": chance with which every client that is there takes part in a round, by its
    /// own coin. Absent: cohorts are drawn as ever, and nothing is gained by the draw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_rate: Option<f64>,
    /// Of unit "client": share of the clients' changes that is to be within the clip. The clip then
    /// starts at `clip` and moves with every round (Andrew et al. 2021). Absent: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_quantile: Option<f64>,
    /// Clip norm of what is protected in a warm-up that reads data. The warm-up then costs one more
    /// noised step (unit "example") or one more release (unit "client"). Absent: a method whose
    /// warm-up reads data is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up_clip: Option<f64>,
}

impl PrivacyChoice {
    /// True when the coordinator adds the noise, to the sum of whole updates.
    pub fn is_per_client(&self) -> bool {
        self.unit == "client"
    }
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
    #[error("{prefix}{0}", prefix = wording::run_file_prefix())]
    Syntax(String),
    /// An unknown key.
    #[error("{}unknown key {}{}", wording::run_file_prefix(), wording::quoted(.key), did_you_mean(.nearest))]
    UnknownKey {
        /// Dotted path of the key.
        key: String,
        /// The known key most like it.
        nearest: Option<String>,
    },
    /// A value outside what makes sense.
    #[error("{}{} {problem}", wording::run_file_prefix(), wording::quoted(.key))]
    Value {
        /// Dotted path of the key.
        key: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|near| format!(", did you mean {}?", wording::quoted(near))).unwrap_or_default()
}

impl RunFile {
    /// Reads a run file: TOML without unknown keys, every value in its range. What is under
    /// `[method]` beside the known keys is left to the method, and what depends on the base model
    /// to `check_base` and the method.
    ///
    /// # Errors
    /// The text is not TOML, a key is unknown or missing, or a value is out of its range.
    pub fn parse(text: &str) -> Result<Self, RunFileError> {
        let syntax = |error: toml::de::Error| RunFileError::Syntax(error.to_string().trim_end().to_owned());
        let mut unknown = None;
        let document = toml::Deserializer::parse(text).map_err(syntax)?;
        let parsed = serde_ignored::deserialize(document, |path| {
            unknown.get_or_insert_with(|| keys::dotted(&path));
        });
        // An unknown key is reported first: a misspelt one would otherwise show as a missing one.
        if let Some(key) = unknown.or_else(|| parsed.is_err().then(|| keys::first_unknown(text)).flatten()) {
            let nearest = keys::nearest_known(&key);
            return Err(RunFileError::UnknownKey { key, nearest });
        }
        let run: Self = parsed.map_err(syntax)?;
        checks::values(&run)?;
        Ok(run)
    }

    /// Checks what depends on the base model alone: that it is the one that is meant, and that
    /// inputs fit it.
    ///
    /// # Errors
    /// The run file names another base or digest, or `task.max_tokens` is more than the base reads.
    pub fn check_base(&self, base: &BaseModel) -> Result<(), RunFileError> {
        checks::base(self, base)
    }
}

#[cfg(test)]
mod tests;
