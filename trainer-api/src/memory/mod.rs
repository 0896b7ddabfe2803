//! How much memory a run's training step takes, estimated before anything is loaded, and how to
//! keep it within what there is.
//!
//! [`ModelSizes`] reads a model's sizes from its config and file headers. [`Workload`] adds what a
//! run asks of it. [`MemoryEstimate`] is the estimated peak by part, and [`choose`] picks the
//! fastest [`StepMode`] that fits. No libtorch in here: the daemon declines with it what does not
//! fit.

mod choose;
mod estimate;
pub mod machine;
mod model_sizes;

pub use choose::{StepChoice, TooLarge, choose};
pub use estimate::{MemoryEstimate, MemoryPart, MemoryPhase, StepMode, Workload};
pub use model_sizes::{LayerKind, ModelSizes, ModelSizesError, TensorSize};

#[cfg(test)]
mod tests;
