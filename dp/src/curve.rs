//! Renyi curves: the privacy loss of everything released so far, at each order.

use crate::event::{AccountingError, Event, check_delta, check_epsilon};
use crate::rdp::{self, ORDERS, is_integer, orders};

/// Renyi loss at each of [`rdp::orders`], in nats. Losses of releases add
/// up, also when later ones were chosen in the light of earlier ones.
/// Neighbours differ in one record, which is there or not.
///
/// An order whose loss is not known is left out of every minimum,
/// which is safe: each order alone gives a guarantee.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    losses: Vec<Option<f64>>,
}

impl Curve {
    /// Nothing released yet.
    pub fn zero() -> Self {
        Self { losses: vec![Some(0.0); ORDERS] }
    }

    /// The loss of an event.
    pub fn of(event: &Event) -> Self {
        Self::of_orders(event, |_| true)
    }

    /// The loss of an event at the integer orders alone: enough for
    /// what is enforced, and a hundred times faster.
    pub(crate) fn enforceable(event: &Event) -> Self {
        Self::of_orders(event, is_integer)
    }

    fn of_orders(event: &Event, wanted: impl Fn(f64) -> bool) -> Self {
        let sigma = event.noise_multiplier();
        let rate = event.sampling_rate();
        let steps = event.steps();
        if steps == 0 {
            return Self::zero();
        }
        let step = |order| if wanted(order) { rdp::poisson_step(sigma, rate, order) } else { None };
        Self { losses: orders().map(step).collect() }.times(steps)
    }

    /// This curve and another together.
    pub fn plus(&self, other: &Self) -> Self {
        Self { losses: self.losses.iter().zip(&other.losses).map(|(&a, &b)| finite(a? + b?)).collect() }
    }

    /// The loss of `count` releases with this curve each.
    pub fn times(&self, count: u64) -> Self {
        Self { losses: self.losses.iter().map(|&loss| finite(loss? * count as f64)).collect() }
    }

    /// The loss at an order of [`rdp::orders`], in nats; `None` if
    /// it is unknown or the order is not in the list.
    pub fn loss(&self, order: f64) -> Option<f64> {
        orders().position(|known| known == order).and_then(|at| self.losses[at])
    }

    /// The epsilon to enforce: over integer orders, where the figures are proven for the discrete
    /// Gaussian noise that is really added (see [`rdp`]). Infinite if no order is known.
    ///
    /// # Errors
    /// `delta` outside (0, 1).
    pub fn epsilon_enforced(&self, delta: f64) -> Result<f64, AccountingError> {
        self.epsilon_over(delta, is_integer)
    }

    /// The epsilon over all orders, as other accountants give it: exact for the
    /// continuous Gaussian, and so within rounding for noise of 2^10 units or
    /// more. Never above [`Self::epsilon_enforced`].
    ///
    /// # Errors
    /// `delta` outside (0, 1).
    pub fn epsilon_rdp(&self, delta: f64) -> Result<f64, AccountingError> {
        self.epsilon_over(delta, |_| true)
    }

    /// The delta at `epsilon`, over integer orders, at most 1.
    ///
    /// # Errors
    /// An epsilon that is negative or not finite.
    pub fn delta_enforced(&self, epsilon: f64) -> Result<f64, AccountingError> {
        self.delta_over(epsilon, is_integer)
    }

    /// The delta at `epsilon`, over all orders, at most 1.
    ///
    /// # Errors
    /// An epsilon that is negative or not finite.
    pub fn delta_rdp(&self, epsilon: f64) -> Result<f64, AccountingError> {
        self.delta_over(epsilon, |_| true)
    }

    fn epsilon_over(&self, delta: f64, wanted: impl Fn(f64) -> bool) -> Result<f64, AccountingError> {
        check_delta(delta)?;
        if self.is_zero() {
            return Ok(0.0);
        }
        let epsilons = self.known(wanted).map(|(order, loss)| rdp::to_epsilon(order, loss, delta));
        Ok(epsilons.fold(f64::INFINITY, f64::min))
    }

    fn delta_over(&self, epsilon: f64, wanted: impl Fn(f64) -> bool) -> Result<f64, AccountingError> {
        check_epsilon(epsilon)?;
        if self.is_zero() {
            return Ok(0.0);
        }
        let deltas = self.known(wanted).map(|(order, loss)| rdp::to_delta(order, loss, epsilon));
        Ok(deltas.fold(1.0, f64::min))
    }

    fn known(&self, wanted: impl Fn(f64) -> bool) -> impl Iterator<Item = (f64, f64)> {
        let known = orders().zip(&self.losses).filter_map(|(order, &loss)| Some((order, loss?)));
        known.filter(move |&(order, _)| wanted(order))
    }

    /// A loss of zero at every order: the conversions,
    /// made for a positive one, would charge for it.
    fn is_zero(&self) -> bool {
        self.losses.iter().all(|&loss| loss == Some(0.0))
    }
}

fn finite(loss: f64) -> Option<f64> {
    loss.is_finite().then_some(loss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_takes_too_long_is_left_out() {
        assert_eq!(Curve::of(&Event::new(0.01, 0.5, 50).unwrap()).loss(1.1), None);
    }

    #[test]
    fn curves_add_up() {
        let a = Event::new(1.0, 0.01, 300).unwrap();
        let b = Event::new(1.0, 0.01, 700).unwrap();
        let sum = Curve::of(&a).plus(&Curve::of(&b));
        let whole = Curve::of(&Event::new(1.0, 0.01, 1000).unwrap());
        let got = sum.epsilon_enforced(1e-5).unwrap();
        let want = whole.epsilon_enforced(1e-5).unwrap();
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }

    #[test]
    fn nothing_released_costs_nothing() {
        let curve = Curve::of(&Event::new(1.0, 0.01, 0).unwrap());
        assert_eq!(curve.epsilon_rdp(1e-5).unwrap(), 0.0);
        assert_eq!(curve.delta_enforced(0.0).unwrap(), 0.0);
    }

    #[test]
    fn noise_too_small_to_account_is_no_guarantee() {
        let curve = Curve::of(&Event::new(1e-200, 0.5, 1).unwrap());
        assert_eq!(curve.epsilon_enforced(1e-5).unwrap(), f64::INFINITY);
        assert_eq!(curve.delta_rdp(10.0).unwrap(), 1.0);
    }
}
