//! What was released, and what it cost.

use serde::{Deserialize, Serialize};

use crate::curve::Curve;
use crate::pld::{self, PldError};

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

/// Releases of the Gaussian mechanism on Poisson samples: every record takes part in a step with probability
/// `sampling_rate`, by its own coin, and the sum of the clipped contributions is noised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
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
}

/// The events of one privacy domain and what they cost together, when one record is added or removed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Accountant {
    events: Vec<Event>,
}

impl Accountant {
    /// No events yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event; steps with the same noise and rate as an earlier event are counted there.
    pub fn record(&mut self, event: Event) {
        let alike = |known: &&mut Event| {
            known.noise_multiplier == event.noise_multiplier && known.sampling_rate == event.sampling_rate
        };
        match self.events.iter_mut().find(alike) {
            // At 2^64 steps every figure is infinite anyway.
            Some(known) => known.steps = known.steps.saturating_add(event.steps),
            None => self.events.push(event),
        }
    }

    /// What was recorded, each kind of step once.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The Renyi curve of all events.
    pub fn curve(&self) -> Curve {
        self.events.iter().fold(Curve::zero(), |sum, event| sum.plus(&Curve::of(event)))
    }

    /// The same at the integer orders alone: enough for what is enforced, and a hundred times faster.
    pub(crate) fn enforceable(&self) -> Curve {
        self.events.iter().fold(Curve::zero(), |sum, event| sum.plus(&Curve::enforceable(event)))
    }

    /// The epsilon to enforce: [`Curve::epsilon_enforced`].
    ///
    /// # Errors
    /// `delta` outside (0, 1).
    pub fn epsilon_enforced(&self, delta: f64) -> Result<f64, AccountingError> {
        self.enforceable().epsilon_enforced(delta)
    }

    /// The epsilon over all orders: [`Curve::epsilon_rdp`].
    ///
    /// # Errors
    /// `delta` outside (0, 1).
    pub fn epsilon_rdp(&self, delta: f64) -> Result<f64, AccountingError> {
        self.curve().epsilon_rdp(delta)
    }

    /// The epsilon by privacy loss distribution, the tightest figure: to report beside the enforced one, for a
    /// schedule that was fixed in advance (it does not cover parameters chosen in the light of results). It is the
    /// continuous Gaussian's, from which noise of 2^10 units or more differs by rounding.
    ///
    /// # Errors
    /// `delta` outside (0, 1), or [`AccountingError::Pld`] where the grid cannot hold the losses.
    pub fn epsilon_pld(&self, delta: f64) -> Result<f64, AccountingError> {
        check_delta(delta)?;
        Ok(pld::epsilon(&self.events, delta)?)
    }

    /// The delta at `epsilon` under the enforced figure, at most 1.
    ///
    /// # Errors
    /// An epsilon that is negative or not finite.
    pub fn delta_for(&self, epsilon: f64) -> Result<f64, AccountingError> {
        self.enforceable().delta_enforced(epsilon)
    }

    /// The delta at `epsilon` by privacy loss distribution.
    ///
    /// # Errors
    /// An epsilon that is negative or not finite, or [`AccountingError::Pld`] where the grid cannot hold the losses.
    pub fn delta_pld(&self, epsilon: f64) -> Result<f64, AccountingError> {
        check_epsilon(epsilon)?;
        Ok(pld::delta(&self.events, epsilon)?)
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
struct Written {
    noise_multiplier: f64,
    sampling_rate: f64,
    steps: u64,
}

impl From<Event> for Written {
    fn from(event: Event) -> Self {
        let Event { noise_multiplier, sampling_rate, steps } = event;
        Self { noise_multiplier, sampling_rate, steps }
    }
}

impl TryFrom<Written> for Event {
    type Error = AccountingError;

    fn try_from(written: Written) -> Result<Self, AccountingError> {
        Self::new(written.noise_multiplier, written.sampling_rate, written.steps)
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

    #[test]
    fn steps_of_a_kind_are_counted_together() {
        let mut accountant = Accountant::new();
        for (sigma, steps) in [(1.0, 3), (2.0, 1), (1.0, 4)] {
            accountant.record(Event::new(sigma, 0.1, steps).unwrap());
        }
        assert_eq!(accountant.events(), [Event::new(1.0, 0.1, 7).unwrap(), Event::new(2.0, 0.1, 1).unwrap()]);
    }

    #[test]
    fn senseless_questions_are_refused() {
        let accountant = Accountant::new();
        for delta in [0.0, 1.0, -1.0, f64::NAN] {
            assert!(accountant.epsilon_enforced(delta).is_err());
            assert!(accountant.epsilon_pld(delta).is_err());
        }
        assert!(accountant.delta_for(-1.0).is_err() && accountant.delta_pld(f64::NAN).is_err());
        assert_eq!(accountant.epsilon_pld(1e-5).unwrap(), 0.0);
    }
}
