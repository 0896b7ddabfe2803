//! The events of a privacy domain, and what they cost together.

use serde::{Deserialize, Serialize};

use crate::curve::Curve;
use crate::event::{AccountingError, Event, check_delta, check_epsilon};
use crate::pld;

/// The events of one privacy domain and what they cost
/// together, when one record is added or removed.
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
            known.noise_multiplier() == event.noise_multiplier() && known.sampling_rate() == event.sampling_rate()
        };
        match self.events.iter_mut().find(alike) {
            Some(known) => known.add_steps(event.steps()),
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

    /// The same at the integer orders alone: enough for
    /// what is enforced, and a hundred times faster.
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

    /// The epsilon by privacy loss distribution, the tightest figure: to report beside the
    /// enforced one, for a schedule that was fixed in advance (it does not cover
    /// parameters chosen in the light of results). It is the continuous Gaussian's, from
    /// which noise of 2^10 units or more differs by rounding.
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
    /// An epsilon that is negative or not finite, or
    /// [`AccountingError::Pld`] where the grid cannot hold the losses.
    pub fn delta_pld(&self, epsilon: f64) -> Result<f64, AccountingError> {
        check_epsilon(epsilon)?;
        Ok(pld::delta(&self.events, epsilon)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
