//! The Gaussian mechanism without sampling, in closed form.
//!
//! Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy" (2018), theorem 8,
//! in the terms of Dong, Roth and Su, "Gaussian Differential Privacy" (2019): T releases with noise
//! multiplier sigma are mu-GDP with mu = sqrt(T) / sigma.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2};

use libm::erfc;

use crate::rdp::ln_erfc;

/// P[N > x] of a standard normal.
pub(crate) fn upper_tail(x: f64) -> f64 {
    0.5 * erfc(x * FRAC_1_SQRT_2)
}

/// The delta of a mu-GDP mechanism: P[N > epsilon/mu - mu/2] - e^epsilon P[N > epsilon/mu + mu/2].
pub(crate) fn delta(mu: f64, epsilon: f64) -> f64 {
    let ln_second = epsilon + ln_erfc((epsilon / mu + mu / 2.0) * FRAC_1_SQRT_2) - LN_2;
    (upper_tail(epsilon / mu - mu / 2.0) - ln_second.exp()).clamp(0.0, 1.0)
}

/// The smallest epsilon at which a mu-GDP mechanism has at most `at` as delta, rounded up.
pub(crate) fn epsilon(mu: f64, at: f64) -> f64 {
    // P[N > sqrt(2 ln(1/delta))] < delta: enough at the upper end.
    let mut low = 0.0;
    let mut high = mu * mu / 2.0 + mu * (-2.0 * at.ln()).sqrt();
    if delta(mu, low) <= at {
        return 0.0;
    }
    while high - low > 1e-12 * high {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if delta(mu, middle) > at { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closed_form_gives_the_published_figures() {
        // dp-accounting 0.6.0: one release at noise multiplier 1, a hundred at 4.
        assert!((epsilon(1.0, 1e-5) - 4.377178).abs() < 1e-6);
        assert!((epsilon(2.5, 1e-5) - 13.206712).abs() < 1e-6);
    }

    #[test]
    fn extreme_noise_gives_numbers() {
        assert_eq!(epsilon(1e-9, 1e-5), 0.0);
        let large = epsilon(100.0, 1e-5);
        assert!(large > 5000.0 && large < 5500.0, "{large}");
    }
}
