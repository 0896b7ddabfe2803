//! Why a privacy loss distribution gives no figure.

/// Why there is no figure. The Renyi figures are there for every event.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PldError {
    /// Losses that reach too far for a grid: far too little noise, or far too many steps.
    #[error("the privacy losses reach {reach:.0}, too far for a loss distribution: use the Renyi figure")]
    Reach {
        /// How far, in nats.
        reach: f64,
    },
    /// Too many different kinds of step.
    #[error("{kinds} kinds of step are too many for a loss distribution: use the Renyi figure")]
    Kinds {
        /// Pairs of noise multiplier and sampling rate.
        kinds: usize,
    },
    /// More steps than the arithmetic keeps apart.
    #[error("{steps} steps are too many for a loss distribution: use the Renyi figure")]
    Steps {
        /// Steps with sampling, in total.
        steps: u64,
    },
    /// A delta below what the arithmetic resolves.
    #[error("delta {delta:e} is below what a loss distribution resolves here: use the Renyi figure")]
    Resolution {
        /// The delta asked for.
        delta: f64,
    },
}
