//! How the layers of a start adapter relate to the targets of a run.

use super::{StartAdapter, StartAdapterError};
use crate::head::{HEAD_WEIGHT, HeadShape};
use crate::layout::Target;

/// An adapter to start from, its layers matched with the run's targets.
#[derive(Debug)]
pub(crate) struct PlacedAdapter {
    pub(crate) adapter: StartAdapter,
    /// For each layer of the adapter: its index in `layers`.
    pub(crate) places: Vec<usize>,
    /// The run's targets, then layers that the adapter changes and the run does not target.
    pub(crate) layers: Vec<Target>,
}

impl PlacedAdapter {
    /// Matches the adapter's layers with `targets`, and its head with `head`.
    ///
    /// # Errors
    /// A layer of another size than the run's target has, or a head of another shape. `base_digest`
    /// names the base model in the message.
    pub(crate) fn new(
        adapter: StartAdapter,
        targets: &[Target],
        head: Option<HeadShape>,
        base_digest: &str,
    ) -> Result<Self, StartAdapterError> {
        let mut places = Vec::new();
        let mut layers = targets.to_vec();
        for layer in adapter.layers() {
            match targets.iter().position(|target| target.name == layer.name) {
                Some(index) if targets[index] == *layer => places.push(index),
                Some(index) => {
                    let Target { name, out, inp } = &targets[index];
                    return Err(StartAdapterError::Shape {
                        layer: name.clone(),
                        base: base_digest.to_owned(),
                        expected: [*out, *inp],
                        got: [layer.out, layer.inp],
                    });
                }
                None => {
                    places.push(layers.len());
                    layers.push(layer.clone());
                }
            }
        }
        if let Some(weight) = adapter.head(HEAD_WEIGHT) {
            let fits = head.is_some_and(|head| weight.shape == [head.labels, head.hidden]);
            if !fits {
                let needs = head.map_or("has none".into(), |head| format!("needs {:?}", [head.labels, head.hidden]));
                return Err(StartAdapterError::Head(format!("its weight is {:?}, the run {needs}", weight.shape)));
            }
        }
        Ok(Self { adapter, places, layers })
    }
}
