//! What one client does in the open round: its training or warm-up work, and its measuring of the
//! result.

use rondo_proto::{Digest, v1};
use serde::{Deserialize, Serialize};

/// What one client does in the open round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Participation {
    /// The attempt it was drawn for. Those of earlier attempts stay, as dropped.
    pub attempt: u32,
    /// How far it is.
    pub state: ParticipationState,
    /// Why it was dropped or is spare; empty otherwise.
    pub reason: String,
    /// The rank it trains with.
    pub rank: u32,
    /// The update that was taken.
    pub update: Option<Update>,
    /// Whether its evaluation is wanted.
    pub evaluation: EvaluationState,
    /// The model as received, measured before training.
    pub before: Option<v1::Evaluation>,
    /// The published adapter, measured.
    pub after: Option<v1::Evaluation>,
    /// The site withholds its measurements.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metrics_withheld: bool,
    /// The upload whose bytes are counted already, so that one that comes twice counts once.
    pub counted: Option<Digest>,
    /// Bytes of its uploads in this round.
    pub bytes_up: u64,
    /// Bytes of its downloads that were first assigned in this round.
    pub bytes_down: u64,
    /// Bytes of its uploads by the layout's formula.
    pub layout_bytes_up: u64,
    /// Bytes of its downloads by the layout's formula.
    pub layout_bytes_down: u64,
}

/// How far a client is with its training (or warm-up) work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParticipationState {
    /// Drawn, but it has not asked yet.
    Selected,
    /// The assignment was handed to it.
    Working,
    /// Its update counts.
    Accepted,
    /// It is not needed: the cohort was full without it.
    Spare,
    /// Out of this round; `reason` says why.
    Dropped,
}

impl ParticipationState {
    /// Whether an update may still come.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Selected | Self::Working)
    }
}

/// An update that was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// Its blob.
    pub digest: Digest,
    /// Training examples behind it.
    pub examples: u64,
    /// Mean training loss.
    pub train_loss: f64,
    /// Seconds of training.
    pub train_seconds: f64,
    /// L2 norm over all its tensors.
    pub norm: f64,
    /// What it cost its client's data.
    #[serde(default)]
    pub privacy: Option<v1::PrivacyReport>,
}

/// How far a client is with measuring the published adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvaluationState {
    /// Not asked for.
    #[default]
    None,
    /// Wanted, but it has not asked yet.
    Due,
    /// The assignment was handed to it.
    Working,
    /// It reported.
    Done,
    /// It could not, or not in time.
    Missed,
}

impl EvaluationState {
    /// As round records spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Due => "due",
            Self::Working => "evaluating",
            Self::Done => "done",
            Self::Missed => "missed",
        }
    }

    /// Whether a report may still come.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Due | Self::Working)
    }
}
