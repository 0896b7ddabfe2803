//! What rounds publish, and the adapter that follows from it.

use rondo_proto::{Digest, v1};
use serde::{Deserialize, Serialize};

/// What a round published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Publication {
    /// The global adapter, or this round's stack.
    pub global: Digest,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its size in bytes by the layout's formula.
    pub layout_bytes: u64,
    /// New frozen tensors, when the round made any.
    pub frozen: Option<Frozen>,
    /// Relative error of the aggregate against the dense weighted mean; absent where that is
    /// private.
    pub error: Option<f64>,
    /// The server optimiser's state after this round. It never leaves the coordinator.
    #[serde(default)]
    pub server: Option<Digest>,
}

/// Frozen tensors that a round published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Their blob.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// Their size by the layout's formula.
    pub layout_bytes: u64,
}

/// A round that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClosedRound {
    /// As operators see it.
    pub record: v1::RoundRecord,
    /// What it published.
    pub publication: Publication,
}

/// The blobs that make up the adapter after some round.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdapterBlobs {
    /// The latest round that is part of it; 0 when nothing was published.
    pub round: u32,
    /// What is merged into the base before everything else: digest, and size by formula.
    pub start_adapter: Option<(Digest, u64)>,
    /// Frozen tensors, if any.
    pub frozen: Option<Frozen>,
    /// Published entries by round, oldest first.
    pub published: Vec<(u32, Publication)>,
    /// The server optimiser's state, if the run has one. It is never sent to a client.
    pub server: Option<Digest>,
}

impl AdapterBlobs {
    /// Every blob that clients fetch, with its size in bytes by formula.
    pub fn blobs(&self) -> impl Iterator<Item = (Digest, u64)> + '_ {
        let frozen = self.frozen.iter().map(|frozen| (frozen.digest, frozen.layout_bytes));
        self.start_adapter
            .into_iter()
            .chain(frozen)
            .chain(self.published.iter().map(|(_, entry)| (entry.global, entry.layout_bytes)))
    }

    /// Published entries, as the version of the base that a client trains on.
    pub fn version(&self) -> u32 {
        self.published.len() as u32
    }

    /// As messages carry it.
    pub fn message(&self) -> v1::AdapterState {
        v1::AdapterState {
            round: self.round,
            frozen_digest: self.frozen.as_ref().map(|frozen| frozen.digest.to_string()).unwrap_or_default(),
            published: self
                .published
                .iter()
                .map(|(round, entry)| v1::Published {
                    round: *round,
                    digest: entry.global.to_string(),
                    bytes: entry.bytes,
                })
                .collect(),
            initial_digest: self.start_adapter.map(|(digest, _)| digest.to_string()).unwrap_or_default(),
        }
    }
}
