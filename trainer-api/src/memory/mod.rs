//! How much memory a run's training step takes, told before anything is loaded, and how to keep it within what there is.
//!
//! [`Outline`] reads a model's sizes from its config and file headers, [`Load`] adds what a run asks of it, [`Need`] is
//! the predicted peak by part, and [`choose`] picks the fastest way of carrying the step out that fits. No libtorch in
//! here: the daemon declines with it what does not fit.

mod choose;
pub mod machine;
mod need;
mod outline;

pub use choose::{Choice, TooLarge, choose};
pub use need::{Load, Need, Part, Phase, Way};
pub use outline::{Family, Matrix, Outline, OutlineError};

#[cfg(test)]
mod tests;
