//! Renyi differential privacy of the Poisson-sampled Gaussian
//! mechanism, when one record is added or removed.
//!
//! Mironov, Talwar and Zhang, "Renyi Differential Privacy of the Sampled Gaussian
//! Mechanism" (2019): with sigma the noise over the clip norm and q the sampling rate, the
//! loss of order a is ln A / (a - 1), where, for x from N(0, sigma^2),
//! A = E[((1 - q) + q exp((2 x - 1) / (2 sigma^2)))^a].
//!
//! For **integer** orders the figure also bounds the discrete Gaussian: with an integer
//! shift mu of norm m the moments E[(P/Q)^k] of N_Z(mu, s^2) against N_Z(0, s^2) are at most
//! exp(k (k - 1) m^2 / (2 s^2)) (Canonne, Kamath and Steinke 2020, theorem 14), A is a sum
//! of them with positive weights, and the reflection x -> mu - x keeps the lattice, so that
//! the other direction is no larger (the argument by symmetry of Mironov et al., section 3).
//! Fractional orders describe the continuous Gaussian.

use std::f64::consts::PI;

use libm::{erfc, expm1, lgamma, log1p};

/// The Renyi orders of a curve: 1.1 to 10.9 in tenths,
/// 11 to 63, and four far ones for small deltas.
pub fn orders() -> impl Iterator<Item = f64> {
    // Divided, not multiplied: 20 / 10 is the integer 2, and the orders read as written.
    let tenths = (11..110).map(|tenth| f64::from(tenth) / 10.0);
    tenths.chain((11..64).map(f64::from)).chain([128.0, 256.0, 512.0, 1024.0])
}

/// How many [`orders`] there are.
pub const ORDERS: usize = 99 + 53 + 4;

/// Whether an order is an integer, where the figures hold for the discrete Gaussian too.
pub fn is_integer(order: f64) -> bool {
    order.fract() == 0.0
}

/// Points of a quadrature, at most. Noise so small that
/// it takes more has no use at fractional orders.
const MAX_POINTS: f64 = 20_000.0;

/// Renyi loss of one step at `order` > 1, in nats; `None` where it cannot be computed
/// (the order is then left out, which is safe: a bound at any one order is a bound).
/// The caller keeps sigma positive and q in (0, 1].
pub(crate) fn poisson_step(sigma: f64, q: f64, order: f64) -> Option<f64> {
    let loss = if q == 1.0 {
        order / (2.0 * sigma * sigma)
    } else if is_integer(order) {
        integer_moment(sigma, q, order) / (order - 1.0)
    } else {
        fractional_moment(sigma, q, order)? / (order - 1.0)
    };
    loss.is_finite().then_some(loss)
}

/// ln A for an integer order, from A - 1 = sum over k from 2 to a of C(a, k) (1-q)^(a-k) q^k
/// (exp(k(k-1)/(2 sigma^2)) - 1). The terms of the binomial sum, which add up to one, are taken
/// out: nothing cancels however small the loss.
fn integer_moment(sigma: f64, q: f64, order: f64) -> f64 {
    let ln_q = q.ln();
    let ln_rest = log1p(-q);
    let excess = (2..=order as u32).map(f64::from).fold(f64::NEG_INFINITY, |sum, k| {
        let exponent = k * (k - 1.0) / (2.0 * sigma * sigma);
        let term = ln_binomial(order, k) + k * ln_q + (order - k) * ln_rest + ln_expm1(exponent);
        ln_add(sum, term)
    });
    ln_add(0.0, excess)
}

/// ln A for any order, from A - 1 = E[r^a - 1 - a (r - 1)] with r the ratio of the densities: E[r]
/// = 1, and what remains is nowhere negative, so that nothing cancels. The trapezium rule converges
/// geometrically here: the integrand is a Gaussian of width sigma times a function that is analytic
/// up to pi sigma^2 off the real line. The series of Mironov et al., section 3.3, has terms that
/// fall as i^-(a+2) alone, too slowly at low orders.
fn fractional_moment(sigma: f64, q: f64, order: f64) -> Option<f64> {
    let variance = sigma * sigma;
    // All mass of r^a N(0, sigma^2) lies within twelve sigma of 0 to a.
    let from = -12.0 * sigma;
    let to = order + 12.0 * sigma;
    let step = (sigma / 8.0).min(variance / 4.0);
    let points = ((to - from) / step).ceil();
    if points.is_nan() || points > MAX_POINTS {
        return None;
    }
    let ln_weight = step.ln() - sigma.ln() - 0.5 * (2.0 * PI).ln();
    let excess = (0..=points as u32).map(f64::from).fold(f64::NEG_INFINITY, |sum, point| {
        let x = from + point * step;
        let exponent = (2.0 * x - 1.0) / (2.0 * variance);
        // ln r, without overflow.
        let ln_ratio = if exponent > 30.0 {
            exponent + q.ln() + log1p((1.0 / q - 1.0) * (-exponent).exp())
        } else {
            log1p(q * expm1(exponent))
        };
        ln_add(sum, ln_convex_excess(order, ln_ratio) - x * x / (2.0 * variance) + ln_weight)
    });
    Some(ln_add(0.0, excess))
}

/// ln(r^a - 1 - a (r - 1)) from ln r.
fn ln_convex_excess(a: f64, ln_r: f64) -> f64 {
    let grown = a * ln_r;
    if grown.abs() < 1e-3 {
        // The sum over k from 2 of (a^k - a) (ln r)^k / k!.
        let two = a * a - a;
        let three = a.powi(3) - a;
        let four = a.powi(4) - a;
        return 2.0 * ln_r.abs().ln() + (two / 2.0 + ln_r * (three / 6.0 + ln_r * four / 24.0)).ln();
    }
    if grown < 30.0 {
        return (expm1(grown) - a * expm1(ln_r)).ln();
    }
    grown + log1p(-(-grown).exp() - a * ((ln_r - grown).exp() - (-grown).exp()))
}

/// The epsilon that a Renyi loss gives at `delta`:
/// Canonne, Kamath and Steinke 2020, proposition 12.
pub(crate) fn to_epsilon(order: f64, loss: f64, delta: f64) -> f64 {
    (loss + log1p(-1.0 / order) - (delta.ln() + order.ln()) / (order - 1.0)).max(0.0)
}

/// The most Renyi loss that keeps an order within
/// (epsilon, delta): [`to_epsilon`], solved for the loss.
pub(crate) fn loss_within(order: f64, epsilon: f64, delta: f64) -> f64 {
    epsilon - log1p(-1.0 / order) + (delta.ln() + order.ln()) / (order - 1.0)
}

/// The delta that a Renyi loss gives at `epsilon`: the same proposition, read the other way.
pub(crate) fn to_delta(order: f64, loss: f64, epsilon: f64) -> f64 {
    let exponent = (order - 1.0) * (loss - epsilon) + order * log1p(-1.0 / order) - (order - 1.0).ln();
    exponent.exp().min(1.0)
}

/// ln(e^a + e^b).
pub(crate) fn ln_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + log1p((low - high).exp()) }
}

/// ln of the binomial coefficient.
pub(crate) fn ln_binomial(n: f64, k: f64) -> f64 {
    lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0)
}

/// ln(e^x - 1) for x > 0.
fn ln_expm1(x: f64) -> f64 {
    x + (-expm1(-x)).ln()
}

/// ln erfc(x), also where erfc underflows (the
/// asymptotic series, good to 1e-9 of erfc from x = 25).
pub(crate) fn ln_erfc(x: f64) -> f64 {
    if x < 25.0 {
        return erfc(x).ln();
    }
    let square = x * x;
    -square - x.ln() - 0.5 * PI.ln() + log1p(-0.5 / square + 0.75 / (square * square))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_as_many_as_said_and_integers_are_exact() {
        assert_eq!(orders().count(), ORDERS);
        assert_eq!(orders().filter(|&order| is_integer(order)).count(), 66);
        assert!(orders().zip(orders().skip(1)).all(|(a, b)| a < b));
    }

    #[test]
    fn a_step_has_the_loss_that_quadrature_gives() {
        for (order, want) in
            [(2.0, 1.71813422075e-4), (8.0, 8.93643907606e-4), (16.0, 3.0878507837), (64.0, 27.3217318746)]
        {
            let got = poisson_step(1.0, 0.01, order).unwrap();
            assert!((got / want - 1.0).abs() < 1e-9, "{order}: {got} {want}");
        }
        for (order, want) in [(1.5, 1.27253743327e-4), (3.7, 3.32935625396e-4)] {
            let got = poisson_step(1.0, 0.01, order).unwrap();
            assert!((got / want - 1.0).abs() < 1e-9, "{order}: {got} {want}");
        }
    }

    #[test]
    fn quadrature_and_sum_agree_at_integer_orders() {
        for (sigma, q) in [(1.0, 0.01), (0.3, 0.5), (5.0, 1e-6), (100.0, 0.3), (0.5, 0.999)] {
            for order in [2.0, 3.0, 10.0] {
                let sum = integer_moment(sigma, q, order);
                let quadrature = fractional_moment(sigma, q, order).unwrap();
                assert!((quadrature / sum - 1.0).abs() < 1e-9, "{sigma} {q} {order}: {quadrature} {sum}");
            }
        }
    }

    #[test]
    fn a_tiny_loss_keeps_its_digits() {
        // At order 2, A - 1 = q^2 (e^(1/sigma^2) - 1), exactly.
        let sigma = 3.0;
        let q = 1e-9;
        let got = poisson_step(sigma, q, 2.0).unwrap();
        let want = q * q * expm1(1.0 / (sigma * sigma));
        assert!((got / want - 1.0).abs() < 1e-12, "{got} {want}");
    }
}
