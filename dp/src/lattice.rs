//! The lattice on which contributions are clipped, summed and noised.
//!
//! A sum in floating point depends on its order and a noise in floating point betrays its low bits
//! (Mironov 2012), so neither carries a guarantee. Here every contribution becomes a vector of
//! integers of L2 norm at most m, in units of 2^k; their sum in i64 is exact in any order, and
//! adding or removing one contribution moves it by at most m.

/// Smallest noise on the lattice, in lattice units. From here the discrete Gaussian is the
/// continuous one to one part in 10^6, so that figures computed for the latter describe it.
pub const MIN_SCALE: u64 = 1 << 10;
/// Largest noise on the lattice, in lattice units: the numbers of the
/// discrete Gaussian's sampler then fit 128 bits.
pub const MAX_SCALE: u64 = 1 << 24;
/// Finest clip norm, in lattice units: 2^31 contributions fit an i64.
const MAX_RADIUS: f64 = 4_294_967_296.0;
/// Coarsest clip norm, in lattice units.
const MIN_RADIUS: f64 = 1024.0;
/// Clip norms from 2^-100 to 2^100: every product below stays an ordinary f64.
const CLIP_EXPONENT: i32 = 100;
const MAX_DIMENSION: usize = 1 << 40;

/// Why a lattice was refused, or a contribution to it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LatticeError {
    /// A clip norm outside what the lattice can hold.
    #[error("clip norm {clip} is not usable: it must be from 2^-100 to 2^100")]
    Clip {
        /// The norm that came.
        clip: f64,
    },
    /// A noise multiplier outside what the lattice can hold.
    #[error("noise multiplier {noise_multiplier} is not usable: it must be from 2^-21 to 2^13")]
    NoiseMultiplier {
        /// The multiplier that came.
        noise_multiplier: f64,
    },
    /// No coordinates, or too many.
    #[error("a contribution of {dimension} numbers is not usable: it must have from 1 to 2^40")]
    Dimension {
        /// The number that came.
        dimension: usize,
    },
    /// A contribution or a sum of another length.
    #[error("the {what} has {got} numbers where the lattice has {dimension}")]
    Length {
        /// "contribution" or "sum".
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length that was agreed.
        dimension: usize,
    },
}

/// What became of a contribution. **This is private data**: whether a gradient
/// was clipped says something about it. It must not leave the process that
/// clipped, not in a log, a metric or an error either.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipOutcome {
    /// Its norm was within the clip norm.
    Whole,
    /// It was scaled down to the clip norm.
    Clipped,
    /// It held an infinity or a NaN and was counted as zero, whole.
    NonFinite,
}

/// A lattice of step 2^k for vectors of a known length,
/// with the clip norm and the noise in its units.
///
/// The step is the finest that keeps the noise s at or below 2^24 units (and the clip
/// norm m at or below 2^32): truncation moves a coordinate of each contribution by less
/// than one unit, against a noise of about 2^24.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lattice {
    exponent: i32,
    radius: u64,
    scale: u64,
    dimension: usize,
}

impl Lattice {
    /// The lattice for contributions of `dimension` numbers, clipped to L2 norm `clip`,
    /// whose sum is noised with a standard deviation of at least `noise_multiplier` times
    /// the clip norm the lattice has ([`Self::clip`]).
    ///
    /// # Errors
    /// Numbers out of the ranges that [`LatticeError`] states.
    pub fn new(clip: f64, noise_multiplier: f64, dimension: usize) -> Result<Self, LatticeError> {
        let widest = power_of_two(CLIP_EXPONENT);
        if !(clip >= 1.0 / widest && clip <= widest) {
            return Err(LatticeError::Clip { clip });
        }
        if dimension == 0 || dimension > MAX_DIMENSION {
            return Err(LatticeError::Dimension { dimension });
        }
        let refused = LatticeError::NoiseMultiplier { noise_multiplier };
        if !(noise_multiplier > 0.0 && noise_multiplier.is_finite()) {
            return Err(refused);
        }
        let widest_radius = (MAX_SCALE as f64 / noise_multiplier).min(MAX_RADIUS);
        let mut exponent = libm::ilogb(clip / widest_radius);
        // ilogb rounds down and the quotient is rounded, so that one or two steps up may be due.
        while clip / power_of_two(exponent) > widest_radius {
            exponent += 1;
        }
        let radius = (clip / power_of_two(exponent)).floor();
        if radius < MIN_RADIUS {
            return Err(refused);
        }
        let scale = product_rounded_up(noise_multiplier, radius);
        if !(MIN_SCALE..=MAX_SCALE).contains(&scale) {
            return Err(refused);
        }
        Ok(Self { exponent, radius: radius as u64, scale, dimension })
    }

    /// k: the step is 2^k.
    pub fn exponent(&self) -> i32 {
        self.exponent
    }

    /// The step, 2^k.
    pub fn step(&self) -> f64 {
        power_of_two(self.exponent)
    }

    /// m: the clip norm in lattice units, and the L2 sensitivity of a
    /// sum when one contribution is added or removed.
    pub fn radius(&self) -> u64 {
        self.radius
    }

    /// s: the standard deviation of the noise, in lattice units.
    pub fn scale(&self) -> u64 {
        self.scale
    }

    /// How many numbers a contribution has.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The clip norm that holds, m 2^k: the one asked for, or less by a part in m.
    pub fn clip(&self) -> f64 {
        self.radius as f64 * self.step()
    }

    /// s / m, rounded down: the noise multiplier to account with. Not below the one asked for.
    pub fn noise_multiplier(&self) -> f64 {
        let scale = self.scale as f64;
        let radius = self.radius as f64;
        let quotient = scale / radius;
        if quotient.mul_add(radius, -scale) > 0.0 { quotient.next_down() } else { quotient }
    }

    /// Clips a contribution, given in `parts` that are one vector (all modules
    /// of an adapter together), truncates it toward zero onto the lattice and
    /// adds it to `sum`, of shape `[dimension]` in lattice units. What is added
    /// has an L2 norm of at most m, checked in integers.
    ///
    /// Additions saturate: 2^31 contributions fit, and saturation does not raise the sensitivity.
    ///
    /// # Errors
    /// Parts or a sum of another length; `sum` is untouched then.
    pub fn add<T: Copy + Into<f64>>(&self, parts: &[&[T]], sum: &mut [i64]) -> Result<ClipOutcome, LatticeError> {
        let got = parts.iter().map(|part| part.len()).sum();
        for (what, got) in [("contribution", got), ("sum", sum.len())] {
            if got != self.dimension {
                return Err(LatticeError::Length { what, got, dimension: self.dimension });
            }
        }
        let numbers = || parts.iter().flat_map(|part| part.iter()).map(|&number| number.into());
        let mut largest = 0f64;
        for number in numbers() {
            // Not `max`, which would let a NaN pass.
            if !number.is_finite() {
                return Ok(ClipOutcome::NonFinite);
            }
            largest = largest.max(number.abs());
        }
        if largest == 0.0 {
            return Ok(ClipOutcome::Whole);
        }
        // The norm as a multiple of the largest number, which neither overflows nor underflows.
        let norm = numbers().map(|number| (number / largest) * (number / largest)).sum::<f64>().sqrt();
        let shrink = self.clip() / largest / norm;
        let clipped = shrink < 1.0;
        let factor = self.fitting(numbers, shrink.min(1.0) / self.step());
        for (total, number) in sum.iter_mut().zip(numbers()) {
            *total = total.saturating_add(on_lattice(number, factor));
        }
        Ok(if clipped { ClipOutcome::Clipped } else { ClipOutcome::Whole })
    }

    /// The largest factor tried, from `factor` down, with which the truncated
    /// numbers have a norm of at most m. The norm in f64 is rounded, so that a
    /// vector on the sphere may lie outside by a unit at first.
    fn fitting<I: Iterator<Item = f64>>(&self, numbers: impl Fn() -> I, mut factor: f64) -> f64 {
        let bound = u128::from(self.radius) * u128::from(self.radius);
        let mut less = f64::EPSILON;
        while numbers().fold(0u128, |sum, number| {
            let unit = u128::from(on_lattice(number, factor).unsigned_abs());
            sum.saturating_add(unit * unit)
        }) > bound
        {
            // At the latest with `less` = 1 the factor is zero, and so is the vector.
            factor *= 1.0 - less;
            less = (2.0 * less).min(1.0);
        }
        factor
    }
}

/// `as` truncates toward zero and saturates.
fn on_lattice(number: f64, factor: f64) -> i64 {
    (number * factor) as i64
}

fn power_of_two(exponent: i32) -> f64 {
    libm::ldexp(1.0, exponent)
}

/// The smallest integer that is not below the exact product.
fn product_rounded_up(a: f64, b: f64) -> u64 {
    let rounded = (a * b).ceil();
    // The fused product is rounded once, so that its sign is exact.
    if a.mul_add(b, -rounded) > 0.0 { rounded as u64 + 1 } else { rounded as u64 }
}
