//! From a budget to the noise it needs, and to the steps it allows.

use serde::{Deserialize, Serialize};

use crate::curve::Curve;
use crate::event::{AccountingError, Event, check_delta, check_noise_multiplier, check_sampling_rate};
use crate::pld;
use crate::pld::error::PldError;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// An epsilon that is not positive and finite.
    #[error("epsilon {value} is not usable: it must be positive and finite")]
    Epsilon {
        /// The number that came.
        value: f64,
    },
    /// No noise that a lattice can hold is enough.
    #[error(
        "no noise multiplier up to {MOST_NOISE} keeps {steps} steps within epsilon {epsilon} at delta {delta:e}: ask for fewer steps, a lower sampling rate or a larger budget"
    )]
    Impossible {
        /// The epsilon asked for.
        epsilon: f64,
        /// The delta asked for.
        delta: f64,
        /// The steps asked for.
        steps: u64,
    },
    /// A number out of its range, or no figure.
    #[error(transparent)]
    Accounting(#[from] AccountingError),
}

/// A budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    epsilon: f64,
    delta: f64,
}

/// Which figure must stay within the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// [`Curve::epsilon_enforced`].
    Enforced,
    /// [`crate::Accountant::epsilon_pld`], tighter, for a schedule that will not be changed.
    Pld,
}

/// The most noise that is tried, as a multiplier: what [`crate::Lattice`] can hold.
pub const MOST_NOISE: f64 = 8192.0;
/// The least; a smaller multiplier would be noise in name only.
pub const LEAST_NOISE: f64 = 1.0 / 64.0;
/// How far above the smallest multiplier the answer may be, relatively.
const TOLERANCE: f64 = 1e-5;

impl Target {
    /// A budget of `epsilon` at `delta`.
    ///
    /// # Errors
    /// An epsilon that is not positive and finite, or a delta outside (0, 1).
    pub fn new(epsilon: f64, delta: f64) -> Result<Self, CalibrationError> {
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            return Err(CalibrationError::Epsilon { value: epsilon });
        }
        check_delta(delta)?;
        Ok(Self { epsilon, delta })
    }

    /// Bound on the log-likelihood ratio.
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// Chance with which it may fail.
    pub fn delta(&self) -> f64 {
        self.delta
    }
}

/// The smallest noise multiplier, from [`LEAST_NOISE`] to [`MOST_NOISE`], with
/// which `steps` steps at `sampling_rate` stay within the budget. Rounded up by at
/// most 1e-5 of itself: the answer does stay within.
///
/// # Errors
/// A sampling rate outside (0, 1]; no multiplier is
/// enough; a delta that the PLD figure cannot resolve.
pub fn noise_multiplier(
    target: Target,
    sampling_rate: f64,
    steps: u64,
    figure: Figure,
) -> Result<f64, CalibrationError> {
    check_sampling_rate(sampling_rate)?;
    let excess = |sigma, figure| excess(target, Event::new(sigma, sampling_rate, steps)?, figure);
    let enforced = |sigma| excess(sigma, Figure::Enforced);
    if let Figure::Enforced = figure {
        return smallest(enforced, 1.0)?.ok_or(CalibrationError::Impossible {
            epsilon: target.epsilon,
            delta: target.delta,
            steps,
        });
    }
    // The enforced figure is quick, and close above.
    let start = smallest(enforced, 1.0)?.unwrap_or(MOST_NOISE);
    smallest(|sigma| excess(sigma, Figure::Pld), start)?.ok_or(CalibrationError::Impossible {
        epsilon: target.epsilon,
        delta: target.delta,
        steps,
    })
}

/// How many further steps, with this noise multiplier and sampling rate, fit the budget under the
/// enforced figure after what was `spent`; zero if none does. At most 2^53.
///
/// # Errors
/// Numbers out of range, or a curve of another adjacency.
pub fn steps(
    target: Target,
    noise_multiplier: f64,
    sampling_rate: f64,
    spent: &Curve,
) -> Result<u64, CalibrationError> {
    check_noise_multiplier(noise_multiplier)?;
    let step = Curve::enforceable(&Event::new(noise_multiplier, sampling_rate, 1)?);
    let fits = |steps| -> Result<bool, AccountingError> {
        Ok(spent.plus(&step.times(steps)).epsilon_enforced(target.delta)? <= target.epsilon)
    };
    let mut enough = 0u64;
    let mut too_many = 1u64;
    while fits(too_many)? {
        if too_many == 1 << 53 {
            return Ok(too_many);
        }
        enough = too_many;
        too_many *= 2;
    }
    while too_many - enough > 1 {
        let middle = enough + (too_many - enough) / 2;
        if fits(middle)? { enough = middle } else { too_many = middle }
    }
    Ok(enough)
}

/// ln(epsilon of the event / epsilon of the target), at most 8 either way: at most zero if it fits.
fn excess(target: Target, event: Event, figure: Figure) -> Result<f64, AccountingError> {
    let epsilon = match figure {
        Figure::Enforced => Curve::enforceable(&event).epsilon_enforced(target.delta)?,
        Figure::Pld => match pld::epsilon(&[event], target.delta) {
            // Too little noise for the grid is too little noise.
            Err(PldError::Reach { .. }) => f64::INFINITY,
            epsilon => epsilon?,
        },
    };
    // Compared, not divided: what is returned as fitting fits to the last bit.
    if epsilon <= target.epsilon {
        return Ok((epsilon / target.epsilon).ln().clamp(-8.0, 0.0));
    }
    Ok((epsilon / target.epsilon).ln().clamp(f64::MIN_POSITIVE, 8.0))
}

/// A multiplier and its [`excess`].
#[derive(Clone, Copy)]
struct Tried {
    sigma: f64,
    excess: f64,
}

/// The smallest multiplier whose excess is at most zero; `None` if the largest has more.
fn smallest(excess: impl Fn(f64) -> Result<f64, AccountingError>, start: f64) -> Result<Option<f64>, AccountingError> {
    let at = |sigma| Ok::<_, AccountingError>(Tried { sigma, excess: excess(sigma)? });
    let mut fitting = at(start)?;
    let mut short = fitting;
    while fitting.excess > 0.0 {
        if fitting.sigma >= MOST_NOISE {
            return Ok(None);
        }
        short = fitting;
        fitting = at((fitting.sigma * 2.0).min(MOST_NOISE))?;
    }
    while short.excess <= 0.0 {
        if short.sigma <= LEAST_NOISE {
            return Ok(Some(short.sigma));
        }
        fitting = short;
        short = at((short.sigma / 1.25).max(LEAST_NOISE))?;
    }
    // ln epsilon is nearly linear in ln sigma, so that a secant lands within the tolerance after a
    // few rounds. It is probed half a tolerance to either side in turn, which closes the bracket
    // from both ends; bisection now and then bounds the rounds where the curve is not like that.
    let mut round = 0;
    while fitting.sigma > short.sigma * (1.0 + TOLERANCE) {
        let width = (fitting.sigma / short.sigma).ln();
        let secant = width * short.excess / (short.excess - fitting.excess);
        let nudge = (TOLERANCE / 2.0).min(width / 4.0);
        let offset = match round % 4 {
            3 => width / 2.0,
            0 | 2 => secant + nudge,
            _ => secant - nudge,
        };
        round += 1;
        let tried = at(short.sigma * offset.clamp(nudge, width - nudge).exp())?;
        if tried.excess <= 0.0 { fitting = tried } else { short = tried }
    }
    Ok(Some(fitting.sigma))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_budgets_are_refused() {
        for (epsilon, delta) in [(0.0, 1e-5), (f64::NAN, 1e-5), (f64::INFINITY, 1e-5), (1.0, 0.0), (1.0, 1.0)] {
            assert!(Target::new(epsilon, delta).is_err(), "{epsilon} {delta}");
        }
    }

    #[test]
    fn what_no_noise_can_do_is_said() {
        let target = Target::new(1e-4, 1e-5).unwrap();
        let error = noise_multiplier(target, 1.0, 1000, Figure::Enforced).unwrap_err();
        assert!(matches!(error, CalibrationError::Impossible { steps: 1000, .. }), "{error}");
    }

    #[test]
    fn the_smallest_noise_fits_and_a_little_less_does_not() {
        let fits = |sigma: f64, rate, steps| {
            Curve::of(&Event::new(sigma, rate, steps).unwrap()).epsilon_enforced(1e-5).unwrap() <= 2.0
        };
        let target = Target::new(2.0, 1e-5).unwrap();
        for (rate, steps) in [(1.0, 1), (0.01, 1000), (0.3, 77), (1e-4, 100_000)] {
            let sigma = noise_multiplier(target, rate, steps, Figure::Enforced).unwrap();
            assert!(fits(sigma, rate, steps) && !fits(sigma * (1.0 - 2.0 * TOLERANCE), rate, steps), "{rate} {steps}");
        }
    }

    #[test]
    fn the_last_step_fits_and_the_next_does_not() {
        let target = Target::new(3.0, 1e-5).unwrap();
        let spent = Curve::of(&Event::new(2.0, 0.1, 20).unwrap());
        let more = steps(target, 1.0, 0.01, &spent).unwrap();
        let epsilon = |steps| {
            let later = Curve::of(&Event::new(1.0, 0.01, steps).unwrap());
            spent.plus(&later).epsilon_enforced(1e-5).unwrap()
        };
        assert!(more > 100 && epsilon(more) <= 3.0 && epsilon(more + 1) > 3.0, "{more}");
        let spent = Curve::of(&Event::new(0.5, 1.0, 20).unwrap());
        assert_eq!(steps(target, 1.0, 0.01, &spent).unwrap(), 0);
    }
}
