//! A run that starts from an adapter: a fixed offset of the base, the same for every method.

use std::path::Path;
use std::sync::Arc;

use super::{AdapterState, HEAD_WEIGHT, Job, MergedDelta};
use crate::error::MethodError;
use crate::initial::{Initial, InitialError};
use crate::layout::Target;

/// An adapter to start from, and how its layers stand to the run's targets.
#[derive(Debug)]
pub(super) struct Start {
    initial: Initial,
    /// Of each of its layers: the index among [`Job::layers`].
    places: Vec<usize>,
    /// The run's targets, then layers that it changes and the run does not target.
    layers: Vec<Target>,
}

impl Job {
    /// The same run, started from the adapter in this file (see [`crate::initial`]): it is merged into the base before
    /// anything else, and its head is the one to begin with.
    pub fn starting_from(&self, path: &Path) -> Result<Self, MethodError> {
        let initial = Initial::open(path)?;
        let (mut places, mut layers) = (Vec::new(), self.targets().to_vec());
        for layer in initial.layers() {
            match self.targets().iter().position(|target| target.name == layer.name) {
                Some(index) if self.targets()[index] == *layer => places.push(index),
                Some(index) => {
                    let Target { name, out, inp } = &self.targets()[index];
                    return Err(MethodError::from(InitialError::Shape {
                        layer: name.clone(),
                        base: self.task().base_digest.clone(),
                        expected: [*out, *inp],
                        got: [layer.out, layer.inp],
                    }));
                }
                None => {
                    places.push(layers.len());
                    layers.push(layer.clone());
                }
            }
        }
        if let Some(weight) = initial.head(HEAD_WEIGHT) {
            let fits = self.head().is_some_and(|head| weight.shape == [head.labels, head.hidden]);
            if !fits {
                let needs =
                    self.head().map_or("has none".into(), |head| format!("needs {:?}", [head.labels, head.hidden]));
                return Err(InitialError::Head(format!("its weight is {:?}, the run {needs}", weight.shape)).into());
            }
        }
        Ok(Self { inner: Arc::clone(&self.inner), start: Some(Arc::new(Start { initial, places, layers })) })
    }

    /// The adapter that the run starts from, if any.
    pub fn initial_adapter(&self) -> Option<&Initial> {
        self.start.as_ref().map(|start| &start.initial)
    }

    /// Every layer whose weight the whole adapter changes: the run's targets, then what only the adapter that it started
    /// from changes.
    pub fn layers(&self) -> &[Target] {
        self.start.as_ref().map_or_else(|| self.targets(), |start| &start.layers)
    }

    /// The warm-up's probe at its start, on the base that the run starts from.
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
        let merged = start.places.iter().zip(start.initial.layers()).map(|(index, layer)| {
            let (delta, parts) = start.initial.delta(&layer.name)?;
            Ok((*index, delta, parts))
        });
        merged.collect()
    }

    /// Digest of the adapter that the run starts from, as files name it; empty without one.
    pub(crate) fn start_digest(&self) -> String {
        self.initial_adapter().map(|initial| initial.digest().to_string()).unwrap_or_default()
    }
}
