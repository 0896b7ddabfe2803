//! The state of an adapter, and the metadata keys of the files that it comes from.

use crate::at::Instance;
use crate::delta::Delta;
use crate::tensor::TensorSet;

/// Metadata key: digest over the tensors that the publisher drew from the run's seed.
pub(crate) const SEEDS: &str = "rondo.seeds";
/// Metadata key: count of files published before this one.
pub(crate) const VERSION: &str = "rondo.version";
/// Metadata key: digest of the adapter that the run started from.
pub(crate) const STARTED: &str = "rondo.initial";

/// A change to merge into the base: index among [`Job::layers`],
/// the expression, and its tensors by part name.
pub type MergedDelta = (usize, Delta, TensorSet);

/// An adapter as a client holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterState {
    /// The round in which it trains, from 1; 0 where it is not a round's: then nothing of it rests.
    pub round: u32,
    /// The client whose adapter it is; empty for what all clients share.
    pub client: String,
    /// Its rank.
    pub rank: usize,
    /// Every tensor of the layout, by full name, head included.
    pub tensors: TensorSet,
    /// What is merged into the base before the adapter is attached, in order: what the run
    /// started from, the method's constant offset, and what methods that accumulate have published.
    pub merged: Vec<MergedDelta>,
}

impl AdapterState {
    /// Whose adapter it is, in which round and at which rank.
    pub fn instance(&self) -> Instance<'_> {
        Instance::in_round(self.round).with_rank(self.rank).of_client(&self.client)
    }
}
