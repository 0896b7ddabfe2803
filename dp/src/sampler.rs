//! The discrete Gaussian, sampled exactly.
//!
//! Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy" (2020), algorithms
//! 1 to 3, for a standard deviation that is an integer below 2^24, so that every probability is a
//! quotient of 128-bit integers. No probability is rounded: each comparison is decided by 64 random
//! bits against a quotient in f64 when the known error of that quotient cannot matter, and in big
//! integers, digit by digit, when it can (about once in 2^47).
//!
//! The time of a draw depends on its value, as with every
//! rejection sampler: release on a schedule of its own.

use dashu::integer::UBig;
use rand_core::{CryptoRng, RngCore};

use crate::lattice::MAX_SCALE;

/// Error bound of a probability in f64, in units of 2^-63. A quotient of two rounded integers,
/// divided by a small one, is off by less than 2^-50 of itself, that is 2^13 units; the random word
/// rounds by 2^9, and by the bit it loses. 2^15 covers them all.
const MARGIN: f64 = 32_768.0;
const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// Why a sampler was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a discrete Gaussian of standard deviation {scale} cannot be sampled: it must be from 1 to 2^24")]
pub struct ScaleError {
    /// The standard deviation asked for, in lattice units.
    pub scale: u64,
}

/// N_Z(0, s^2): the probability of x is proportional to exp(-x^2 / (2 s^2)) over the integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiscreteGaussian {
    /// s.
    scale: u64,
    /// t = s + 1, the scale of the discrete Laplace proposal.
    proposal: u64,
    /// 2 s^2 t^2.
    denominator: u128,
    /// The same, rounded once.
    rounded_denominator: f64,
}

impl DiscreteGaussian {
    /// The distribution of standard deviation `scale`, in lattice units.
    ///
    /// # Errors
    /// A scale outside 1 to [`MAX_SCALE`].
    pub fn new(scale: u64) -> Result<Self, ScaleError> {
        if !(1..=MAX_SCALE).contains(&scale) {
            return Err(ScaleError { scale });
        }
        let proposal = scale + 1;
        let product = u128::from(scale) * u128::from(proposal);
        let denominator = 2 * product * product;
        Ok(Self { scale, proposal, denominator, rounded_denominator: denominator as f64 })
    }

    /// s, in lattice units.
    pub fn scale(&self) -> u64 {
        self.scale
    }

    /// One draw, in lattice units.
    pub fn sample<R: RngCore + CryptoRng>(&self, rng: &mut R) -> i64 {
        loop {
            let negative = rng.next_u32() & 1 == 1;
            let magnitude = self.laplace_magnitude(rng);
            // Zero would otherwise be proposed with either sign.
            if magnitude == 0 && negative {
                continue;
            }
            // The proposal is kept with probability exp(-(|x| - s^2/t)^2 / (2 s^2)), here over 2
            // s^2 t^2. The square fits: |x| beyond 2^15 t has probability e^-32768.
            let distance = (u128::from(magnitude) * u128::from(self.proposal))
                .abs_diff(u128::from(self.scale) * u128::from(self.scale));
            if self.kept(distance * distance, rng) {
                return if negative { -(magnitude as i64) } else { magnitude as i64 };
            }
        }
    }

    /// |x| of the discrete Laplace distribution of scale t: u + t v with u below t kept with probability exp(-u/t),
    /// and v geometric.
    #[inline]
    fn laplace_magnitude<R: RngCore>(&self, rng: &mut R) -> u64 {
        let t = self.proposal;
        let remainder = loop {
            let u = below(t, rng);
            // Both are below 2^25, so that they are converted
            // as signed numbers, which is one instruction.
            let quotient = u as i64 as f64 / t as i64 as f64;
            if bernoulli_exp_unit(u128::from(u), u128::from(t), quotient, rng) {
                break u;
            }
        };
        let mut whole = 0;
        while bernoulli_exp_one(rng) {
            whole += 1;
        }
        remainder + t * whole
    }

    /// True with probability exp(-numerator / (2 s^2 t^2))
    /// (CKS20, algorithm 1, from its second part on).
    #[inline]
    fn kept<R: RngCore>(&self, mut numerator: u128, rng: &mut R) -> bool {
        while numerator > self.denominator {
            if !bernoulli_exp_one(rng) {
                return false;
            }
            numerator -= self.denominator;
        }
        let quotient = numerator as f64 / self.rounded_denominator;
        bernoulli_exp_unit(numerator, self.denominator, quotient, rng)
    }
}

/// True with probability `numerator / (denominator k)` <= 1; `quotient`
/// is that in f64, within the error of [`MARGIN`].
#[inline]
fn bernoulli<R: RngCore>(numerator: u128, denominator: u128, k: u32, quotient: f64, rng: &mut R) -> bool {
    let word = rng.next_u64();
    // One bit less than there is, for the conversion of a signed number.
    let drawn = (word >> 1) as i64 as f64;
    let threshold = quotient * TWO_63;
    if drawn + MARGIN < threshold {
        return true;
    }
    if drawn > threshold + MARGIN {
        return false;
    }
    bernoulli_by_digits(UBig::from(numerator), UBig::from(denominator) * k, word, rng)
}

/// Compares a uniform number in [0, 1), whose first base-2^64
/// digit is `word`, with `numerator / denominator`.
#[cold]
fn bernoulli_by_digits<R: RngCore>(numerator: UBig, denominator: UBig, mut word: u64, rng: &mut R) -> bool {
    let mut rest = numerator;
    loop {
        rest <<= 64;
        let digit = &rest / &denominator;
        let drawn = UBig::from(word);
        if drawn != digit {
            return drawn < digit;
        }
        rest %= &denominator;
        if rest == UBig::ZERO {
            return false;
        }
        word = rng.next_u64();
    }
}

/// True with probability exp(-numerator / denominator), for a quotient up to 1: the parity of the
/// first failure in draws of probability quotient / 1, quotient / 2, ... (CKS20, algorithm 1).
#[inline]
fn bernoulli_exp_unit<R: RngCore>(numerator: u128, denominator: u128, quotient: f64, rng: &mut R) -> bool {
    let mut k = 1u32;
    while bernoulli(numerator, denominator, k, quotient / f64::from(k), rng) {
        k += 1;
    }
    k % 2 == 1
}

/// True with probability 1/e. The first round of [`bernoulli_exp_unit`] always succeeds here.
#[inline]
fn bernoulli_exp_one<R: RngCore>(rng: &mut R) -> bool {
    let mut k = 2u32;
    while bernoulli(1, 1, k, 1.0 / f64::from(k), rng) {
        k += 1;
    }
    k % 2 == 1
}

/// Uniform below `bound`, without bias (Lemire, "Fast
/// Random Integer Generation in an Interval", 2019).
#[inline]
fn below<R: RngCore>(bound: u64, rng: &mut R) -> u64 {
    let mut product = u128::from(rng.next_u64()) * u128::from(bound);
    if (product as u64) < bound {
        let unfair = bound.wrapping_neg() % bound;
        while (product as u64) < unfair {
            product = u128::from(rng.next_u64()) * u128::from(bound);
        }
    }
    (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecureRng;

    #[test]
    fn scales_outside_the_words_are_refused() {
        assert_eq!(DiscreteGaussian::new(0), Err(ScaleError { scale: 0 }));
        assert!(DiscreteGaussian::new(MAX_SCALE).is_ok());
        assert!(DiscreteGaussian::new(MAX_SCALE + 1).is_err());
    }

    #[test]
    fn the_slow_path_has_the_same_probability() {
        let mut rng = SecureRng::repeatable_for_tests(1);
        let draws = 200_000;
        let hits = (0..draws)
            .filter(|_| {
                let word = rng.next_u64();
                bernoulli_by_digits(2u8.into(), 7u8.into(), word, &mut rng)
            })
            .count();
        let share = hits as f64 / f64::from(draws);
        let sd = (2.0 / 7.0 * 5.0 / 7.0 / f64::from(draws)).sqrt();
        assert!((share - 2.0 / 7.0).abs() < 4.0 * sd, "{share}");
    }

    #[test]
    fn the_slow_path_decides_at_the_edge() {
        let mut rng = SecureRng::repeatable_for_tests(2);
        // 1/2 is the digit 2^63 exactly: below it true, at it false.
        assert!(bernoulli_by_digits(1u8.into(), 2u8.into(), (1 << 63) - 1, &mut rng));
        assert!(!bernoulli_by_digits(1u8.into(), 2u8.into(), 1 << 63, &mut rng));
        assert!(bernoulli_by_digits(5u8.into(), 5u8.into(), u64::MAX, &mut rng));
        assert!(!bernoulli_by_digits(0u8.into(), 5u8.into(), 0, &mut rng));
        // 1/3 = 0.5555... in base 16: the word equals the
        // first digit, so the next words decide, both ways.
        let third = u64::MAX / 3;
        let hits = (0..2000).filter(|_| bernoulli_by_digits(1u8.into(), 3u8.into(), third, &mut rng)).count();
        assert!((550..790).contains(&hits), "{hits}");
    }
}
