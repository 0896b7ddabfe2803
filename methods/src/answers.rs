//! What methods answer about a run as a whole: publication, exactness, privacy.

use serde::{Deserialize, Serialize};

/// What the coordinator does with a published aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Publication {
    /// The latest file holds the adapter.
    Replace,
    /// Every file holds a delta that is merged into the base weights, in
    /// order; a client that missed some merges them all first. Tensors that
    /// travel both ways are those of the latest file.
    Accumulate,
}

/// Whether the aggregate's delta equals the weighted mean of the clients' deltas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exactness {
    /// To rounding.
    Exact,
    /// Not, for this reason.
    Approximate(String),
}

impl std::fmt::Display for Exactness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Approximate(why) => write!(f, "approximate: {why}"),
        }
    }
}

/// What a differentially private run of the method would release. However a method trains, one
/// client moves the sum of clipped changes by the clip at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DpSupport {
    /// The coordinator may add the noise to the sum of updates.
    Central {
        /// Parts that are released.
        released: Vec<String>,
    },
    /// Only noise at the client protects, for this reason.
    LocalOnly(String),
    /// No guarantee can be given, for this reason.
    Unsupported(String),
}
