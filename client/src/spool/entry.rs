//! One update in the spool: what it is for, what is reported
//! beside its tensors, and what its release costs.

use std::path::PathBuf;

use rondo_proto::{Digest, RunId, v1};
use serde::{Deserialize, Serialize};

/// What an update is for; its place in the spool says so too.
/// The coordinator counts one per client and key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The run.
    pub run: RunId,
    /// The round, from 1; 0 is the warm-up.
    pub round: u32,
    /// The attempt at the round.
    pub attempt: u32,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run {}, round {}, attempt {}", self.run, self.round, self.attempt)
    }
}

/// What is reported about an update beside its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Training examples, by which the update weighs.
    pub examples: u64,
    /// Mean training loss in nats.
    pub train_loss: f64,
    /// Wall-clock seconds of training.
    pub train_seconds: f64,
    /// Rank of the adapter.
    pub rank: u32,
    /// Published entries that the adapter stood on.
    pub base_version: u32,
    /// The state as received, measured before training.
    pub before: Option<v1::Evaluation>,
    /// What its release costs the data.
    #[serde(default)]
    pub charge: Charge,
}

/// The record of an entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) key: Key,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) facts: Facts,
    /// The coordinator said that it holds the update.
    pub(super) accepted: bool,
}

/// What the release of an update costs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Charge {
    /// Nothing: the run has no privacy, or the update rests on no data.
    #[default]
    None,
    /// The ledger must have it before the update leaves.
    Due,
    /// The ledger has it.
    Paid(v1::PrivacyReport),
}

impl Charge {
    /// Whether the update costs something: it is kept as long as its round
    /// may ask for it, since another would cost again.
    pub fn is_some(&self) -> bool {
        *self != Self::None
    }
}

/// One update in the spool.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it is for.
    pub key: Key,
    /// Digest of the file.
    pub digest: Digest,
    /// Size of the file.
    pub bytes: u64,
    /// The safetensors file.
    pub path: PathBuf,
    /// What is reported beside it.
    pub facts: Facts,
    /// The coordinator said that it holds the update.
    pub accepted: bool,
}
