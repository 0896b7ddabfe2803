//! Why a coordinator cannot give the privacy that a run states.

use crate::calibration::CalibrationError;
use crate::event::AccountingError;

/// Fewest clients whose sum can hide one of them.
pub const LEAST_COHORT: u32 = 2;

/// Why a coordinator cannot keep a promise.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClientPlanError {
    /// The promise is not one per client.
    #[error("the run promises {promise}, which is not for the coordinator to keep")]
    Unit {
        /// The promise in one line.
        promise: String,
    },
    /// Nobody to hide among.
    #[error("a cohort of {cohort} hides nobody: a promise per client needs at least {LEAST_COHORT}")]
    Cohort {
        /// The run's.
        cohort: u32,
    },
    /// A delta that lets whole clients through.
    #[error(
        "delta {delta:e} is not below 1/{clients}, one over the number of clients: a mechanism that publishes one of them \
         in full would keep it; the run needs a smaller delta"
    )]
    Delta {
        /// The run's.
        delta: f64,
        /// The clients there must be for such cohorts.
        clients: f64,
    },
    /// Too few to count, under noise, how many were clipped.
    #[error(
        "a clip that follows a quantile needs a cohort of at least {least} beside noise multiplier \
         {noise_multiplier:.4}, and the run's is {cohort}: leave privacy.clip_quantile out, or take larger cohorts"
    )]
    AdaptiveCohort {
        /// The run's.
        cohort: u32,
        /// The run's, or what its budget asks for.
        noise_multiplier: f64,
        /// What would do.
        least: f64,
    },
    /// Not one round fits.
    #[error(
        "noise multiplier {noise_multiplier} spends epsilon {epsilon:.4} in the first round, more than the {limit} of the \
         whole run"
    )]
    FirstRound {
        /// The run's.
        noise_multiplier: f64,
        /// What a round costs.
        epsilon: f64,
        /// The run's epsilon.
        limit: f64,
    },
    /// No noise is enough, or a number is out of range.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A number is out of range.
    #[error(transparent)]
    Accounting(#[from] AccountingError),
}
