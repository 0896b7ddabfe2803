//! Tensors from the run's seed, bit-identical on every machine.
//!
//! A counter-based generator: BLAKE3 keyed by the tensor's identity, its output stream cut into
//! 32-bit words, word i being number i of the row-major tensor. The top 24 bits k of a word
//! become `((k + 0.5) / 2^23 - 1) * bound` in f64, rounded to f32 once. Normal numbers come in
//! pairs, by Box and Muller: words 2i and 2i + 1 become u and v, each `(word + 0.5) / 2^32`,
//! and numbers 2i and 2i + 1 are `std * sqrt(-2 ln u)` times the cosine and the sine of `2 pi
//! v`, in f64 with the functions of the `libm` crate, rounded to f32 once. There is no other
//! float path, and torch's generator is never asked.

use crate::tensor::Tensor;

/// Domain of the generator; a new version would draw other numbers.
const CONTEXT: &str = "rondo-methods 2026-11 seeded tensor v1";
/// Domain of the normal numbers.
const NORMAL_CONTEXT: &str = "rondo-methods 2026-11 seeded normal tensor v1";

/// What makes a seeded tensor the one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The run's seed.
    pub seed: u64,
    /// Full name of the tensor.
    pub name: &'a str,
    /// Round and client, for tensors that start anew in every round.
    pub fresh: Option<(u32, &'a str)>,
}

/// Numbers uniform in (-bound, bound). Shapes of equal width share their leading rows.
pub fn uniform(identity: Identity<'_>, shape: &[usize], bound: f64) -> Tensor {
    let mut data = Vec::with_capacity(shape.iter().product());
    words(CONTEXT, identity, shape.iter().product(), |word| data.push(number(word, bound)));
    Tensor { shape: shape.to_vec(), data }
}

/// Numbers of a normal distribution with mean 0. Shapes of equal width share their leading rows.
pub fn normal(identity: Identity<'_>, shape: &[usize], std: f64) -> Tensor {
    let count: usize = shape.iter().product();
    let mut data = Vec::with_capacity(count + 1);
    let mut first = None;
    words(NORMAL_CONTEXT, identity, count.next_multiple_of(2), |word| match first.take() {
        None => first = Some(word),
        Some(radius) => data.extend(pair(radius, word, std)),
    });
    data.truncate(count);
    Tensor { shape: shape.to_vec(), data }
}

/// Two independent normal numbers from two words.
fn pair(radius: u32, angle: u32, std: f64) -> [f32; 2] {
    let unit = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
    let length = std * libm::sqrt(-2.0 * libm::log(unit(radius)));
    let turn = std::f64::consts::TAU * unit(angle);
    [(length * libm::cos(turn)) as f32, (length * libm::sin(turn)) as f32]
}

/// A matrix `[rows, columns]` whose entry `[k, j]` is 1 where `j mod period = k`, else 0.
pub fn tile(shape: [usize; 2], period: usize) -> Tensor {
    let [rows, columns] = shape;
    let mut tensor = Tensor::zeros(&shape);
    for column in 0..columns {
        let row = column % period;
        if row < rows {
            tensor.data[row * columns + column] = 1.0;
        }
    }
    tensor
}

/// The words of a tensor's stream, in order.
fn words(context: &str, identity: Identity<'_>, count: usize, mut take: impl FnMut(u32)) {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&identity.seed.to_le_bytes());
    // Lengths first, so that no two identities give the same bytes.
    let mut absorb = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    absorb(identity.name);
    if let Some((round, client)) = identity.fresh {
        absorb(client);
        hasher.update(&round.to_le_bytes());
    }
    let mut stream = hasher.finalize_xof();
    let mut left = count;
    let mut block = [0_u8; 4096];
    while left > 0 {
        stream.fill(&mut block);
        let words = block.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let now = left.min(block.len() / 4);
        words.take(now).for_each(&mut take);
        left -= now;
    }
}

fn number(word: u32, bound: f64) -> f32 {
    let k = f64::from(word >> 8);
    (((k + 0.5) / f64::from(1 << 23) - 1.0) * bound) as f32
}

/// PEFT's bound for LoRA's A `[r, in]`: Kaiming-uniform
/// with a = sqrt 5 is U(-1/sqrt(in), 1/sqrt(in)).
pub fn kaiming_bound(inp: usize) -> f64 {
    1.0 / (inp as f64).sqrt()
}

/// Bound that gives rows (or columns) of `length` numbers an
/// expected squared norm of 1, for sketching matrices.
pub fn sketch_bound(length: usize) -> f64 {
    (3.0 / length as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Identity<'_> = Identity { seed: 7, name: "encoder.layer.0.attention.self.query.lora_A", fresh: None };

    #[test]
    fn numbers_never_change() {
        let tensor = uniform(ID, &[2, 3], 0.5);
        let bits: Vec<u32> = tensor.data.iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits, GOLDEN, "{:?}", tensor.data);
    }

    /// Made by this generator once; a change here breaks every stored run.
    const GOLDEN: [u32; 6] = [3195381110, 3196575445, 1046352738, 3199393067, 3199491169, 3181133284];

    #[test]
    fn normal_numbers_never_change() {
        let tensor = normal(ID, &[1, 5], 2.0);
        let bits: Vec<u32> = tensor.data.iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits, NORMAL_GOLDEN, "{:?}", tensor.data);
        assert_eq!(normal(ID, &[3], 2.0).data[..], tensor.data[..3], "an odd count cuts the last pair");
    }

    /// Made by hand from the words of the stream, with another
    /// BLAKE3 and another logarithm, sine and cosine.
    const NORMAL_GOLDEN: [u32; 5] = [3222530868, 3216053109, 3192762479, 1073271815, 3224346130];

    #[test]
    fn normal_numbers_are_normal() {
        let numbers: Vec<f64> = normal(ID, &[200, 100], 2.0).data.iter().map(|&x| f64::from(x) / 2.0).collect();
        let moment = |power| numbers.iter().map(|x| x.powi(power)).sum::<f64>() / numbers.len() as f64;
        for (power, expected, slack) in [(1, 0.0, 0.03), (2, 1.0, 0.04), (3, 0.0, 0.12), (4, 3.0, 0.25)] {
            assert!((moment(power) - expected).abs() < slack, "moment {power}: {}", moment(power));
        }
        let extremes = [pair(0, 0, 1.0), pair(u32::MAX, u32::MAX, 1.0)];
        assert!(extremes.as_flattened().iter().all(|x| x.is_finite() && x.abs() < 7.0), "{extremes:?}");
    }

    #[test]
    fn a_tiling_repeats() {
        assert_eq!(tile([2, 5], 2).data, [1., 0., 1., 0., 1., 0., 1., 0., 1., 0.]);
        assert_eq!(tile([2, 4], 3).data, [1., 0., 0., 1., 0., 1., 0., 0.]);
    }

    #[test]
    fn uniform_within_bounds() {
        let tensor = uniform(ID, &[200, 100], 2.0);
        assert!(tensor.data.iter().all(|x| x.abs() < 2.0));
        let mean = tensor.data.iter().map(|&x| f64::from(x)).sum::<f64>() / 20_000.0;
        let square = tensor.data.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((square - 4.0 / 3.0).abs() < 0.03, "{square}");
    }

    #[test]
    fn extremes_stay_inside() {
        assert_eq!(number(u32::MAX, 1.0), 1.0 - 2.0_f32.powi(-24));
        assert_eq!(number(0, 1.0), -1.0 + 2.0_f32.powi(-24));
    }

    #[test]
    fn lower_ranks_are_leading_rows() {
        let (wide, narrow) = (uniform(ID, &[8, 6], 1.0), uniform(ID, &[3, 6], 1.0));
        assert_eq!(wide.data[..18], narrow.data[..]);
    }

    #[test]
    fn identities_are_told_apart() {
        let of = |identity| uniform(identity, &[4], 1.0).data;
        let fresh = Identity { fresh: Some((1, "a")), ..ID };
        let all = [
            of(ID),
            of(Identity { seed: 8, ..ID }),
            of(Identity { name: "other", ..ID }),
            of(fresh),
            of(Identity { fresh: Some((2, "a")), ..ID }),
            of(Identity { fresh: Some((1, "b")), ..ID }),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| other != one), "identity {index}");
        }
    }
}
