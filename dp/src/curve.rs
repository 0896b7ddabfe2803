//! Renyi curves: the privacy loss of everything released so far, at each order.

use serde::{Deserialize, Serialize};

use crate::accountant::{AccountingError, Event, check_delta, check_epsilon};
use crate::fixed::FixedRounds;
use crate::rdp::{self, ORDERS, is_integer, orders};

/// Which neighbours a guarantee speaks of. Losses under different ones do not add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adjacency {
    /// One record more or less.
    AddOrRemove,
    /// One record in place of another; their number is public.
    ReplaceOne,
}

/// Renyi loss at each of [`rdp::orders`], in nats. Losses of releases add up, also when later ones were chosen in the
/// light of earlier ones.
///
/// An order whose loss is not known is left out of every minimum, which is safe: each order alone gives a guarantee.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Curve {
    adjacency: Adjacency,
    losses: Vec<Option<f64>>,
}

impl Curve {
    /// Nothing released yet.
    pub fn zero(adjacency: Adjacency) -> Self {
        Self { adjacency, losses: vec![Some(0.0); ORDERS] }
    }

    /// The loss of an event, under [`Adjacency::AddOrRemove`].
    pub fn of(event: &Event) -> Self {
        Self::of_orders(event, |_| true)
    }

    /// The loss of an event at the integer orders alone: enough for what is enforced, and a hundred times faster.
    pub(crate) fn enforceable(event: &Event) -> Self {
        Self::of_orders(event, is_integer)
    }

    fn of_orders(event: &Event, wanted: impl Fn(f64) -> bool) -> Self {
        let (sigma, rate, steps) = (event.noise_multiplier(), event.sampling_rate(), event.steps());
        if steps == 0 {
            return Self::zero(Adjacency::AddOrRemove);
        }
        let step = |order| if wanted(order) { rdp::poisson_step(sigma, rate, order) } else { None };
        Self { adjacency: Adjacency::AddOrRemove, losses: orders().map(step).collect() }.times(steps)
    }

    /// The loss of rounds with cohorts of a fixed size, under [`Adjacency::ReplaceOne`].
    pub fn of_fixed(rounds: &FixedRounds) -> Self {
        if rounds.steps() == 0 {
            return Self::zero(Adjacency::ReplaceOne);
        }
        Self { adjacency: Adjacency::ReplaceOne, losses: rounds.losses() }.times(rounds.steps())
    }

    /// Which neighbours the losses speak of.
    pub fn adjacency(&self) -> Adjacency {
        self.adjacency
    }

    /// This curve and another together.
    ///
    /// # Errors
    /// [`AccountingError::Adjacency`] if they speak of different neighbours.
    pub fn plus(&self, other: &Self) -> Result<Self, AccountingError> {
        if self.adjacency != other.adjacency {
            return Err(AccountingError::Adjacency);
        }
        let losses = self.losses.iter().zip(&other.losses).map(|(&a, &b)| finite(a? + b?)).collect();
        Ok(Self { adjacency: self.adjacency, losses })
    }

    /// The loss of `count` releases with this curve each.
    pub fn times(&self, count: u64) -> Self {
        let losses = self.losses.iter().map(|&loss| finite(loss? * count as f64)).collect();
        Self { adjacency: self.adjacency, losses }
    }

    /// The loss at an order of [`rdp::orders`], in nats; `None` if it is unknown or the order is not in the list.
    pub fn loss(&self, order: f64) -> Option<f64> {
        orders().position(|known| known == order).and_then(|at| self.losses[at])
    }

    /// The epsilon to enforce: over integer orders, where the figures are proven for the discrete Gaussian noise that
    /// is really added (see [`rdp`]; a curve of fixed cohorts rests on moments of the continuous one at these orders
    /// too). Infinite if no order is known.
    ///
    /// # Errors
    /// `delta` outside (0, 1).
    pub fn epsilon_enforced(&self, delta: f64) -> Result<f64, AccountingError> {
        self.epsilon_over(delta, is_integer)
    }

    /// The epsilon over all orders, as other accountants give it: exact for the continuous Gaussian, and so within
    /// rounding for noise of 2^10 units or more. Never above [`Self::epsilon_enforced`].
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

    /// A loss of zero at every order: the conversions, made for a positive one, would charge for it.
    fn is_zero(&self) -> bool {
        self.losses.iter().all(|&loss| loss == Some(0.0))
    }
}

fn finite(loss: f64) -> Option<f64> {
    loss.is_finite().then_some(loss)
}

/// A curve as it is stored: pairs of order and loss, so that a change of the list of orders is noticed.
#[derive(Serialize, Deserialize)]
struct Written {
    adjacency: Adjacency,
    losses: Vec<(f64, f64)>,
}

impl From<Curve> for Written {
    fn from(curve: Curve) -> Self {
        Self { adjacency: curve.adjacency, losses: curve.known(|_| true).collect() }
    }
}

impl TryFrom<Written> for Curve {
    type Error = AccountingError;

    fn try_from(written: Written) -> Result<Self, AccountingError> {
        let mut losses = vec![None; ORDERS];
        for (order, loss) in written.losses {
            let at = orders().position(|known| known == order).ok_or(AccountingError::Order { order })?;
            if !(loss >= 0.0 && loss.is_finite()) || losses[at].is_some() {
                return Err(AccountingError::Loss { order, loss });
            }
            losses[at] = Some(loss);
        }
        Ok(Self { adjacency: written.adjacency, losses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_survives_storage_and_a_doctored_one_does_not() {
        let curve = Curve::of(&Event::new(0.01, 0.5, 50).unwrap());
        assert_eq!(curve.loss(1.1), None, "an order that takes too long is left out");
        let text = serde_json::to_string(&curve).unwrap();
        assert_eq!(serde_json::from_str::<Curve>(&text).unwrap(), curve);
        for losses in ["[[2.0,-1.0]]", "[[2.05,1.0]]", "[[2.0,1.0],[2.0,0.5]]"] {
            let text = format!(r#"{{"adjacency":"add-or-remove","losses":{losses}}}"#);
            assert!(serde_json::from_str::<Curve>(&text).is_err(), "{losses}");
        }
    }

    #[test]
    fn curves_add_up() {
        let (a, b) = (Event::new(1.0, 0.01, 300).unwrap(), Event::new(1.0, 0.01, 700).unwrap());
        let sum = Curve::of(&a).plus(&Curve::of(&b)).unwrap();
        let whole = Curve::of(&Event::new(1.0, 0.01, 1000).unwrap());
        let (got, want) = (sum.epsilon_enforced(1e-5).unwrap(), whole.epsilon_enforced(1e-5).unwrap());
        assert!((got - want).abs() < 1e-12, "{got} {want}");
        assert!(sum.plus(&Curve::zero(Adjacency::ReplaceOne)).is_err());
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
