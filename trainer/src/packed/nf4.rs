//! NF4, the 4-bit NormalFloat of QLoRA (Dettmers et al., 2023, <https://arxiv.org/abs/2305.14314>,
//! section 3 and appendix E): 64 numbers share their largest magnitude; each is the nearest of 16
//! values of a code book that spends them as normally distributed weights need them.

/// Numbers that share a scale.
pub const BLOCK: usize = 64;

/// The code book, ascending, of [-1, 1] with an exact zero: with Q the quantile function of the
/// standard normal distribution and d = (1/2) (1/32 + 1/30), the values Q of 8 points evenly spaced
/// from 1 - d down to 1/2 and the negatives of 7 such points, divided by the largest, and zero
/// counted once. A test computes them so.
pub const CODE_BOOK: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Between value `i` and `i + 1` of the code book the nearest changes here.
const BOUNDARIES: [f32; 15] = {
    let mut boundaries = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        boundaries[i] = (CODE_BOOK[i] + CODE_BOOK[i + 1]) / 2.0;
        i += 1;
    }
    boundaries
};

/// Numbers in 4 bits each, and a scale for each [`BLOCK`] of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4 {
    /// Two numbers to a byte, the first in the high half; an odd last one stands alone.
    pub codes: Vec<u8>,
    /// The largest magnitude of each block; the last block may be short.
    pub scales: Vec<f32>,
    /// How many numbers there are.
    pub numbers: usize,
}

/// Lengths do not belong together, or a place lies outside.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("numbers {first} to {end} of {numbers} were asked for; a part begins at a multiple of 64 and ends within")]
pub struct Nf4Error {
    /// The first number asked for.
    pub first: usize,
    /// One after the last.
    pub end: usize,
    /// How many there are.
    pub numbers: usize,
}

impl Nf4 {
    /// The nearest codes. Numbers that are not finite make their block's scale so, and are the
    /// caller's to refuse.
    pub fn pack(numbers: &[f32]) -> Self {
        let mut packed = Self::with_capacity(numbers.len());
        packed.extend(numbers);
        packed
    }

    /// Nothing yet, with room for so many numbers.
    pub fn with_capacity(numbers: usize) -> Self {
        let codes = numbers.div_ceil(2);
        let scales = numbers.div_ceil(BLOCK);
        Self { codes: Vec::with_capacity(codes), scales: Vec::with_capacity(scales), numbers: 0 }
    }

    /// Packs more numbers behind those that are there, which are whole blocks.
    pub fn extend(&mut self, numbers: &[f32]) {
        debug_assert!(self.numbers.is_multiple_of(BLOCK), "a short block is the last");
        for block in numbers.chunks(BLOCK) {
            let scale = block.iter().fold(0f32, |most, number| if number.abs() <= most { most } else { number.abs() });
            self.scales.push(scale);
            // A block of zeros: 0 * 0 is the code of zero.
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            // A tiny scale has no finite inverse; its block is divided instead.
            let code = |number: f32| nearest(if inverse.is_finite() { number * inverse } else { number / scale });
            for pair in block.chunks(2) {
                self.codes.push(code(pair[0]) << 4 | pair.get(1).map_or(0, |second| code(*second)));
            }
        }
        self.numbers += numbers.len();
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.codes.len() + self.scales.len() * 4
    }

    /// The numbers from `first` on, as many as `out` takes.
    ///
    /// # Errors
    /// `first` is no multiple of [`BLOCK`], or there are not so many.
    pub fn unpack(&self, first: usize, out: &mut [f32]) -> Result<(), Nf4Error> {
        let end = first.saturating_add(out.len());
        let short = self.codes.len() < self.numbers.div_ceil(2) || self.scales.len() < self.numbers.div_ceil(BLOCK);
        if !first.is_multiple_of(BLOCK) || end > self.numbers || short {
            return Err(Nf4Error { first, end, numbers: self.numbers });
        }
        let blocks = self.codes[first / 2..].chunks(BLOCK / 2).zip(&self.scales[first / BLOCK..]);
        for (out, (codes, scale)) in out.chunks_mut(BLOCK).zip(blocks) {
            // Sixteen products a block instead of one a number.
            let values = CODE_BOOK.map(|value| value * scale);
            for (pair, byte) in out.chunks_mut(2).zip(codes) {
                pair[0] = values[usize::from(byte >> 4)];
                if let Some(second) = pair.get_mut(1) {
                    *second = values[usize::from(byte & 15)];
                }
            }
        }
        Ok(())
    }
}

/// The code of the nearest value: how many boundaries lie below, without branches.
#[inline(always)]
fn nearest(number: f32) -> u8 {
    BOUNDARIES.iter().map(|boundary| u8::from(number > *boundary)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The distribution function of the standard normal, by its Taylor series around 0; for |x| < 3
    /// far below 1e-12.
    fn normal(x: f64) -> f64 {
        let mut term = x;
        let mut sum = x;
        for n in 1..80 {
            term *= -x * x / (2.0 * f64::from(n));
            sum += term / f64::from(2 * n + 1);
        }
        0.5 + sum / (2.0 * std::f64::consts::PI).sqrt()
    }

    fn quantile(p: f64) -> f64 {
        let mut low = -3.0;
        let mut high = 3.0;
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if normal(middle) < p { low = middle } else { high = middle }
        }
        (low + high) / 2.0
    }

    #[test]
    fn the_code_book_follows_from_its_definition() {
        let offset = 1.0 - 0.5 * (1.0 / 32.0 + 1.0 / 30.0);
        let points = |count: usize| {
            (0..count).map(move |i| quantile(offset + (0.5 - offset) * i as f64 / count as f64)).collect::<Vec<_>>()
        };
        let mut values: Vec<f64> = points(8).into_iter().chain([0.0]).chain(points(7).iter().map(|v| -v)).collect();
        values.sort_by(f64::total_cmp);
        let largest = values[15];
        for (value, code) in values.iter().zip(CODE_BOOK) {
            assert!((value / largest - f64::from(code)).abs() < 1e-6, "{} and {code}", value / largest);
        }
    }

    #[test]
    fn values_of_the_code_book_survive() {
        let numbers: Vec<f32> = CODE_BOOK.iter().map(|value| value * 3.0).collect();
        let packed = Nf4::pack(&numbers);
        assert_eq!((packed.scales.as_slice(), packed.codes[0], packed.codes[7]), (&[3.0][..], 0x01, 0xef));
        let mut out = vec![f32::NAN; 16];
        packed.unpack(0, &mut out).unwrap();
        assert_eq!(out, numbers);
        for numbers in [&[0.0; 65][..], &[1e-42; 3], &[f32::MAX; 2], &[]] {
            let packed = Nf4::pack(numbers);
            let mut out = vec![f32::NAN; numbers.len()];
            packed.unpack(0, &mut out).unwrap();
            assert_eq!(out, numbers);
        }
    }

    #[test]
    fn parts_are_whole_blocks_within() {
        let packed = Nf4::pack(&[1.0; 130]);
        assert_eq!(packed.bytes(), 65 + 3 * 4);
        let mut out = [0.0; 66];
        assert_eq!(packed.unpack(64, &mut out), Ok(()));
        assert_eq!(out, [1.0; 66]);
        assert_eq!(packed.unpack(1, &mut out[..1]), Err(Nf4Error { first: 1, end: 2, numbers: 130 }));
        assert!(packed.unpack(128, &mut out[..3]).is_err());
        assert!(packed.unpack(usize::MAX - 63, &mut out).is_err());
    }

    proptest! {
        /// No value of the code book is nearer than the one that was taken.
        #[test]
        fn the_nearest_value_is_taken(numbers in prop::collection::vec(-2f32..2.0, 1..200)) {
            let packed = Nf4::pack(&numbers);
            let mut out = vec![f32::NAN; numbers.len()];
            packed.unpack(0, &mut out).unwrap();
            for (at, (number, found)) in numbers.iter().zip(&out).enumerate() {
                let scale = packed.scales[at / BLOCK];
                let best = CODE_BOOK.iter().map(|value| (value * scale - number).abs()).fold(f32::MAX, f32::min);
                prop_assert!((found - number).abs() <= best + scale * 1e-6);
            }
        }
    }
}
