//! Rounds with cohorts of a fixed size, drawn without replacement, when one record replaces another.
//!
//! Wang, Balle and Kasiviswanathan, "Subsampled Renyi Differential Privacy and Analytical Moments Accountant" (2019),
//! theorem 27 for the Gaussian mechanism, as dp-accounting has it. The figures are for the continuous Gaussian.

use std::f64::consts::{LN_2, PI};

use libm::expm1;

use crate::accountant::{AccountingError, check_noise_multiplier};
use crate::rdp::{ln_add, ln_binomial, orders};

/// Releases of the Gaussian mechanism on cohorts of `drawn` out of `of` records, uniform and without replacement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FixedRounds {
    noise_multiplier: f64,
    drawn: u64,
    of: u64,
    steps: u64,
}

/// From this order the moments are bounded rather than computed, as in dp-accounting.
const MAX_EXACT: u32 = 256;
/// Points of a quadrature, at most; a moment that needs more is bounded.
const MAX_POINTS: f64 = 1e5;

impl FixedRounds {
    /// `steps` releases with noise of standard deviation `noise_multiplier` times the **sensitivity of a replacement**,
    /// which is twice the clip norm: half the noise multiplier of [`crate::Lattice`].
    ///
    /// # Errors
    /// A noise multiplier that is not positive and finite; a cohort of none, or of more than there are.
    pub fn new(noise_multiplier: f64, drawn: u64, of: u64, steps: u64) -> Result<Self, AccountingError> {
        check_noise_multiplier(noise_multiplier)?;
        if drawn == 0 || drawn > of {
            return Err(AccountingError::Cohort { drawn, of });
        }
        Ok(Self { noise_multiplier, drawn, of, steps })
    }

    /// Number of releases.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Renyi loss of one release at each of [`orders`], in nats; `None` where it is not finite.
    pub(crate) fn losses(&self) -> Vec<Option<f64>> {
        let everyone = self.drawn == self.of;
        let central: Vec<f64> =
            if everyone { Vec::new() } else { (1..=MAX_EXACT / 2).map(|half| self.central_moment(2 * half)).collect() };
        let moment = |order| self.moment(order, &central);
        let loss = |order: f64| {
            if everyone {
                return order / (2.0 * self.noise_multiplier * self.noise_multiplier);
            }
            // Between integers: (a - 1) RDP(a) is convex in a (corollary 10), and zero at 1.
            let (below, share) = (order.floor(), order.fract());
            let moment =
                if share == 0.0 { moment(order) } else { (1.0 - share) * moment(below) + share * moment(below + 1.0) };
            moment / (order - 1.0)
        };
        orders().map(loss).map(|loss| loss.is_finite().then_some(loss)).collect()
    }

    /// The bound on (a - 1) RDP(a) of theorem 27, for an integer order; `central[i]` is the moment of order 2 i + 2.
    fn moment(&self, order: f64, central: &[f64]) -> f64 {
        let ln_rate = (self.drawn as f64 / self.of as f64).ln();
        let precision = 1.0 / (self.noise_multiplier * self.noise_multiplier);
        let excess = (2..=order as u32).fold(f64::NEG_INFINITY, |sum, i| {
            let k = f64::from(i);
            let plain = LN_2 + k * (k - 1.0) * precision / 2.0;
            let moment = match i {
                // The second central moment is e^(1/sigma^2) - 1.
                2 => plain.min(2.0 * LN_2 + precision + (-expm1(-precision)).ln()),
                _ if order > f64::from(MAX_EXACT) => plain,
                _ => {
                    let of = |even: u32| central[(even / 2 - 1) as usize];
                    plain.min(2.0 * LN_2 + 0.5 * (of(i / 2 * 2) + of(i.div_ceil(2) * 2)))
                }
            };
            ln_add(sum, ln_binomial(order, k) + k * ln_rate + moment)
        });
        ln_add(0.0, excess)
    }

    /// ln E[(P/Q - 1)^l] for P = N(1, sigma^2), Q = N(0, sigma^2), x from Q, l even. The trapezium rule at an eighth
    /// of sigma is exact here to rounding (the integrand is a sum of Gaussians of that width), and, unlike the
    /// differences of moments in the paper, it cancels nothing. Infinite where it would take too many points.
    fn central_moment(&self, l: u32) -> f64 {
        let sigma = self.noise_multiplier;
        let (l, step) = (f64::from(l), sigma / 8.0);
        // The mass of (P/Q)^j Q lies around j.
        let (from, to) = (-12.0 * sigma, l + 12.0 * sigma);
        let points = ((to - from) / step).ceil();
        if points > MAX_POINTS {
            return f64::INFINITY;
        }
        let ln_density = -sigma.ln() - 0.5 * (2.0 * PI).ln();
        (0..=points as u32).map(f64::from).fold(f64::NEG_INFINITY, |sum, point| {
            let x = from + point * step;
            let loss = (2.0 * x - 1.0) / (2.0 * sigma * sigma);
            // ln |e^loss - 1|, without overflow.
            let ln_excess = loss.max(0.0) + (-expm1(-loss.abs())).ln();
            ln_add(sum, l * ln_excess - x * x / (2.0 * sigma * sigma) + ln_density + step.ln())
        })
    }
}
