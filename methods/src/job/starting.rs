//! A run that starts from an adapter: a fixed offset of the base, the same for every method.

use std::path::Path;
use std::sync::Arc;

use super::{AdapterState, Job, MergedDelta};
use crate::error::MethodError;
use crate::layout::Target;
use crate::start_adapter::{PlacedAdapter, StartAdapter};

impl Job {
    /// The same run, started from the adapter in this file (see [`crate::start_adapter`]). The
    /// adapter is merged into the base before anything else, and its head is the one to begin with.
    ///
    /// # Errors
    /// A file that is no start adapter, or one that does not fit the run's targets and head.
    pub fn starting_from(&self, path: &Path) -> Result<Self, MethodError> {
        let adapter = StartAdapter::open(path)?;
        let placed = PlacedAdapter::new(adapter, self.targets(), self.head(), &self.task().base_digest)?;
        Ok(Self { inner: Arc::clone(&self.inner), start: Some(Arc::new(placed)) })
    }

    /// The adapter that the run starts from, if any.
    pub fn start_adapter(&self) -> Option<&StartAdapter> {
        self.start.as_ref().map(|start| &start.adapter)
    }

    /// Every layer whose weight the whole adapter changes: the run's targets, then what only the
    /// adapter that it started from changes.
    pub fn layers(&self) -> &[Target] {
        self.start.as_ref().map_or_else(|| self.targets(), |start| &start.layers)
    }

    /// The warm-up's probe at its start, on the base that the run starts from.
    ///
    /// # Errors
    /// The adapter that the run starts from cannot be read.
    pub fn warm_up_state(&self, rank: usize) -> Result<AdapterState, MethodError> {
        Ok(AdapterState {
            round: 0,
            client: String::new(),
            rank,
            tensors: self.warm_up_initial(),
            merged: self.start_deltas()?,
        })
    }

    /// What is merged into the base before anything that the run publishes.
    pub(super) fn start_deltas(&self) -> Result<Vec<MergedDelta>, MethodError> {
        let Some(start) = &self.start else { return Ok(Vec::new()) };
        let merged = start.places.iter().zip(start.adapter.layers()).map(|(index, layer)| {
            let (delta, parts) = start.adapter.delta(&layer.name)?;
            Ok((*index, delta, parts))
        });
        merged.collect()
    }

    /// Digest of the adapter that the run starts from, as files name it; empty without one.
    pub(crate) fn start_digest(&self) -> String {
        self.start_adapter().map(|adapter| adapter.digest().to_string()).unwrap_or_default()
    }
}
