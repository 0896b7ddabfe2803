//! A release as the accountants see it, the ranges of its numbers, and the error of every figure.

use serde::{Deserialize, Serialize};

use crate::pld::error::PldError;

/// Why a figure was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AccountingError {
    /// A noise multiplier that is not positive and finite.
    #[error("noise multiplier {value} is not usable: it must be positive and finite")]
    NoiseMultiplier {
        /// The number that came.
        value: f64,
    },
    /// A sampling rate outside (0, 1].
    #[error("sampling rate {value} is not usable: it must be above 0 and at most 1")]
    SamplingRate {
        /// The number that came.
        value: f64,
    },
    /// A delta outside (0, 1).
    #[error("delta {value} is not usable: it must be above 0 and below 1")]
    Delta {
        /// The number that came.
        value: f64,
    },
    /// An epsilon that is negative or not finite.
    #[error("epsilon {value} is not usable: it must be finite and not negative")]
    Epsilon {
        /// The number that came.
        value: f64,
    },
    /// The accountant by privacy loss distribution gave up.
    #[error(transparent)]
    Pld(#[from] PldError),
}

/// Releases of the Gaussian mechanism on Poisson samples: every record
/// takes part in a step with probability `sampling_rate`, by its own coin,
/// and the sum of the clipped contributions is noised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredEvent", into = "StoredEvent")]
pub struct Event {
    noise_multiplier: f64,
    sampling_rate: f64,
    steps: u64,
}

impl Event {
    /// `steps` releases with noise of standard deviation `noise_multiplier` times the clip norm.
    ///
    /// # Errors
    /// A noise multiplier that is not positive and finite, or a sampling rate outside (0, 1].
    pub fn new(noise_multiplier: f64, sampling_rate: f64, steps: u64) -> Result<Self, AccountingError> {
        check_noise_multiplier(noise_multiplier)?;
        check_sampling_rate(sampling_rate)?;
        Ok(Self { noise_multiplier, sampling_rate, steps })
    }

    /// Standard deviation of the noise over the clip norm.
    pub fn noise_multiplier(&self) -> f64 {
        self.noise_multiplier
    }

    /// Probability with which a record takes part in a step.
    pub fn sampling_rate(&self) -> f64 {
        self.sampling_rate
    }

    /// Number of releases.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Counts further steps of the same kind. At 2^64 steps every figure is infinite anyway.
    pub(crate) fn add_steps(&mut self, steps: u64) {
        self.steps = self.steps.saturating_add(steps);
    }
}

pub(crate) fn check_noise_multiplier(value: f64) -> Result<(), AccountingError> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(AccountingError::NoiseMultiplier { value }) }
}

pub(crate) fn check_sampling_rate(value: f64) -> Result<(), AccountingError> {
    if value > 0.0 && value <= 1.0 { Ok(()) } else { Err(AccountingError::SamplingRate { value }) }
}

pub(crate) fn check_delta(value: f64) -> Result<(), AccountingError> {
    if value > 0.0 && value < 1.0 { Ok(()) } else { Err(AccountingError::Delta { value }) }
}

pub(crate) fn check_epsilon(value: f64) -> Result<(), AccountingError> {
    if value >= 0.0 && value.is_finite() { Ok(()) } else { Err(AccountingError::Epsilon { value }) }
}

/// An event as it is stored; read through [`Event::new`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEvent {
    noise_multiplier: f64,
    sampling_rate: f64,
    steps: u64,
}

impl From<Event> for StoredEvent {
    fn from(event: Event) -> Self {
        let Event { noise_multiplier, sampling_rate, steps } = event;
        Self { noise_multiplier, sampling_rate, steps }
    }
}

impl TryFrom<StoredEvent> for Event {
    type Error = AccountingError;

    fn try_from(stored: StoredEvent) -> Result<Self, AccountingError> {
        Self::new(stored.noise_multiplier, stored.sampling_rate, stored.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_events_are_refused_also_when_read() {
        for (sigma, rate) in
            [(0.0, 0.5), (-1.0, 0.5), (f64::NAN, 0.5), (f64::INFINITY, 0.5), (1.0, 0.0), (1.0, 1.1), (1.0, f64::NAN)]
        {
            assert!(Event::new(sigma, rate, 1).is_err(), "{sigma} {rate}");
        }
        assert!(serde_json::from_str::<Event>(r#"{"noise_multiplier":0.0,"sampling_rate":0.5,"steps":1}"#).is_err());
        let event = Event::new(1.1, 0.01, 7).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&serde_json::to_string(&event).unwrap()).unwrap(), event);
    }
}
