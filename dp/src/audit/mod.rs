//! Audits: what a release really hides, measured from outside.
//!
//! They see a mechanism as a function from sums to noisy vectors and know nothing
//! of its code, so that they find a wrong noise, a reused one, or one that never
//! came. They prove nothing: they fail to refute.
//!
//! Every audit has a false alarm rate, one minus its confidence.

mod canary;
mod interval;
mod one_run;
mod scale;

pub use canary::{AuditReport, canary};
pub use one_run::{OneRunReport, one_run};
pub use scale::{ScaleReport, noise_scale};

/// Why an audit did not take place.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Too few coordinates for its statistics.
    #[error("an audit needs at least {least} coordinates and got {got}")]
    Dimension {
        /// What the lattice has.
        got: usize,
        /// What it takes.
        least: usize,
    },
    /// A confidence outside what makes sense.
    #[error("confidence {confidence} is not usable: it must be from 0.5 to 0.999999")]
    Confidence {
        /// The number that came.
        confidence: f64,
    },
    /// A delta outside (0, 1).
    #[error("delta {delta} is not usable: it must be above 0 and below 1")]
    Delta {
        /// The number that came.
        delta: f64,
    },
    /// The mechanism answered with another length, or with something that is not a number.
    #[error("the mechanism did not answer with {dimension} finite numbers")]
    Answer {
        /// Length of the sum it was given.
        dimension: usize,
    },
    /// The mechanism failed.
    #[error("the mechanism failed")]
    Mechanism(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No randomness for the coins.
    #[error(transparent)]
    Entropy(#[from] crate::EntropyError),
}

/// The mechanism's answer to `sum`, in lattice units, checked.
fn released<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    answer: Result<Vec<f64>, E>,
    lattice: &crate::Lattice,
) -> Result<Vec<f64>, AuditError> {
    let mut noisy = answer.map_err(|error| AuditError::Mechanism(error.into()))?;
    let dimension = lattice.dimension();
    if noisy.len() != dimension || !noisy.iter().all(|number| number.is_finite()) {
        return Err(AuditError::Answer { dimension });
    }
    noisy.iter_mut().for_each(|number| *number /= lattice.step());
    Ok(noisy)
}

fn check_confidence(confidence: f64) -> Result<(), AuditError> {
    if (0.5..=0.999_999).contains(&confidence) { Ok(()) } else { Err(AuditError::Confidence { confidence }) }
}

fn check_dimension(lattice: &crate::Lattice, least: usize) -> Result<(), AuditError> {
    let got = lattice.dimension();
    if got < least { Err(AuditError::Dimension { got, least }) } else { Ok(()) }
}
