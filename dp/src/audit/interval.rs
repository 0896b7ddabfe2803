//! Confidence bounds of a probability, and quantiles of the normal distribution.

use libm::{lgamma, log1p};

use crate::gaussian::upper_tail;

/// Clopper and Pearson 1934: the largest probability under which `hits` or fewer of `trials` still
/// happen with probability 1 - `confidence`. One-sided and exact, never below the true coverage.
pub(super) fn upper_bound(hits: usize, trials: usize, confidence: f64) -> f64 {
    if hits >= trials {
        return 1.0;
    }
    let a = hits as f64 + 1.0;
    let b = (trials - hits) as f64;
    // P[Bin(n, p) <= k] = 1 - I_p(k + 1, n - k), falling in p.
    let mut low = 0.0;
    let mut high = 1.0;
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if incomplete_beta(a, b, middle) < confidence { low = middle } else { high = middle }
    }
    high
}

/// The regularised incomplete beta function I_x(a, b), by its
/// continued fraction (Numerical Recipes, section 6.4).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = (lgamma(a + b) - lgamma(a) - lgamma(b) + a * x.ln() + b * log1p(-x)).exp();
    // The fraction converges quickly on the near side of the mean alone.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(a, b, x) / a
    } else {
        1.0 - front * fraction(b, a, 1.0 - x) / b
    }
}

/// Lentz's evaluation.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut result = d;
    // Convergence takes about sqrt(max(a, b)) rounds.
    for m in (1..100_000).map(f64::from) {
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        result *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        result *= d * c;
        if (d * c - 1.0).abs() < 1e-14 {
            break;
        }
    }
    result
}

/// The x with P[N > x] = `share`, for a share in (0, 1), to 1e-12.
pub(super) fn upper_quantile(share: f64) -> f64 {
    let mut low = -40.0;
    let mut high = 40.0;
    while high - low > 1e-12 {
        let middle = 0.5 * (low + high);
        if upper_tail(middle) > share { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_beta_quantile() {
        // scipy.stats.beta.ppf(confidence, hits + 1, trials - hits)
        for (hits, trials, confidence, want) in [
            (0, 10, 0.95, 0.2588655508930522),
            (3, 50, 0.975, 0.16548194660377288),
            (500, 1000, 0.999, 0.5492289460152177),
            (30000, 200000, 0.9995, 0.15264298719882785),
        ] {
            let got = upper_bound(hits, trials, confidence);
            assert!((got - want).abs() < 1e-8, "{hits}/{trials}: {got} {want}");
        }
        assert_eq!(upper_bound(5, 5, 0.9), 1.0);
    }

    #[test]
    fn a_quantile_is_where_its_tail_begins() {
        assert!((upper_quantile(upper_tail(1.3)) - 1.3).abs() < 1e-9);
    }
}
