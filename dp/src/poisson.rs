//! Poisson sampling: every record by its own coin.

use rand_core::RngCore;

use crate::secure_rng::SecureRng;

/// The records of a step, of `count` in all: each one by its own coin with chance `rate`,
/// rounded down to a multiple of 2^-64. Ascending; often empty where `rate * count` is
/// small. Shuffled passes are another distribution, whose batches hide less (Chua et al.
/// 2024, "How Private are DP-SGD Implementations?").
pub fn poisson_sample(count: usize, rate: f64, rng: &mut SecureRng) -> Vec<usize> {
    if rate >= 1.0 {
        return (0..count).collect();
    }
    // Exact: a product with a power of two, cut to an integer.
    let below = (rate * 2f64.powi(64)) as u64;
    (0..count).filter(|_| rng.next_u64() < below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_comes_with_its_chance_and_by_its_own_coin() {
        let mut noise = SecureRng::repeatable_for_tests(1);
        let count = 200;
        let rate = 0.1;
        let draws = 5000;
        let mut single = vec![0u32; count];
        let mut pairs = 0u32;
        let mut sizes = Vec::new();
        for _ in 0..draws {
            let sample = poisson_sample(count, rate, &mut noise);
            assert!(sample.windows(2).all(|pair| pair[0] < pair[1]));
            sample.iter().for_each(|&record| single[record] += 1);
            pairs += u32::from(sample.contains(&3) && sample.contains(&4));
            sizes.push(sample.len() as f64);
        }
        // Five standard deviations: 500 +- 21.2 each, 50 +- 7.0 for a pair.
        assert!(single.iter().all(|&times| (394..=606).contains(&times)), "{single:?}");
        assert!((15..=85).contains(&pairs), "{pairs}");
        let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
        let variance = sizes.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / sizes.len() as f64;
        // Binomial: 20 and 18. A fixed batch size would have variance 0.
        assert!((mean - 20.0).abs() < 0.3 && (variance - 18.0).abs() < 2.0, "{mean} {variance}");
    }

    #[test]
    fn the_ends() {
        let mut noise = SecureRng::repeatable_for_tests(2);
        assert_eq!(poisson_sample(3, 1.0, &mut noise), [0, 1, 2]);
        assert!(poisson_sample(1000, 1e-30, &mut noise).is_empty());
        assert!(poisson_sample(0, 0.5, &mut noise).is_empty());
    }
}
