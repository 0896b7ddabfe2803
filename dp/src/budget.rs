//! What a privacy domain may spend in all, over runs whose
//! parameters depend on what earlier runs showed.

use serde::{Deserialize, Serialize};

use crate::calibration::{CalibrationError, Target};
use crate::curve::Curve;
use crate::event::AccountingError;
use crate::rdp;

/// What a data owner declares for a domain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    target: Target,
}

impl Limit {
    /// A bound of `epsilon` at `delta`.
    ///
    /// # Errors
    /// An epsilon that is not positive and finite, or a delta outside (0, 1).
    pub fn new(epsilon: f64, delta: f64) -> Result<Self, CalibrationError> {
        Ok(Self { target: Target::new(epsilon, delta)? })
    }

    /// The budget at the order that has room for the most releases of this kind.
    pub fn at_best_order(&self, release: &Curve) -> Budget {
        let epsilon = self.target.epsilon();
        let delta = self.target.delta();
        let times = |order: f64| match release.loss(order) {
            Some(loss) => rdp::loss_within(order, epsilon, delta) / loss,
            None => f64::NEG_INFINITY,
        };
        let integers = rdp::orders().filter(|&order| rdp::is_integer(order));
        let order = integers.max_by(|left, right| times(*left).total_cmp(&times(*right)));
        Budget { epsilon, delta, order: order.unwrap_or(2.0) }
    }

    /// The budget at an order that was fixed before.
    pub fn at_order(&self, order: f64) -> Budget {
        Budget { epsilon: self.target.epsilon(), delta: self.target.delta(), order }
    }
}

/// A bound on everything that is ever released of one domain.
///
/// Runs are chosen in the light of earlier results, and only the loss at an order fixed
/// beforehand bounds that (Feldman and Zrnic 2021, "Individual Privacy Accounting via a
/// Renyi Filter"). So a budget is held at one integer order, chosen when the domain's first
/// run is reserved, for that run's kind of release.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Bound on the log-likelihood ratio.
    pub epsilon: f64,
    /// Chance with which it may fail.
    pub delta: f64,
    /// The order that was fixed.
    pub order: f64,
}

impl Budget {
    /// The epsilon that a curve costs, at the budget's order and
    /// delta; infinite where the loss there is unknown.
    ///
    /// # Errors
    /// A delta outside (0, 1), in a budget that was read from somewhere.
    pub fn cost(&self, curve: &Curve) -> Result<f64, AccountingError> {
        crate::event::check_delta(self.delta)?;
        Ok(match curve.loss(self.order) {
            Some(0.0) => 0.0,
            Some(loss) => rdp::to_epsilon(self.order, loss, self.delta),
            None => f64::INFINITY,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn no_other_order_has_room_for_more() {
        let limit = Limit::new(8.0, 1e-6).unwrap();
        for (sigma, rate) in [(1.0, 1.0), (0.9, 0.03), (3.0, 0.2)] {
            let step = Curve::of(&Event::new(sigma, rate, 1).unwrap());
            let budget = limit.at_best_order(&step);
            let fits = |budget: Budget| (0..).find(|&n| budget.cost(&step.times(n + 1)).unwrap() > 8.0).unwrap();
            let most = fits(budget);
            for order in (2..=63).map(f64::from) {
                assert!(fits(limit.at_order(order)) <= most, "{sigma} {rate}: {order} against {}", budget.order);
            }
        }
    }

    #[test]
    fn nothing_costs_nothing_and_the_unknown_costs_everything() {
        let limit = Limit::new(1.0, 1e-5).unwrap();
        assert_eq!(limit.at_order(4.0).cost(&Curve::zero()).unwrap(), 0.0);
        let step = Curve::of(&Event::new(1.0, 1.0, 1).unwrap());
        assert_eq!(limit.at_order(2.05).cost(&step).unwrap(), f64::INFINITY);
        assert!(Limit::new(0.0, 1e-5).is_err() && Limit::new(1.0, 1.0).is_err());
    }
}
