//! An audit of a whole training by one run of it (Steinke, Nasr and Jagielski 2023,
//! "Privacy Auditing with One (1) Training Run", theorem 5.2): every canary takes part
//! by the toss of a coin, the attacker guesses the coins it is surest of, and the
//! number of right guesses bounds epsilon from below.

use libm::lgamma;

/// What the guesses prove.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneRunReport {
    /// Canaries.
    pub canaries: usize,
    /// Coins that were guessed.
    pub guesses: usize,
    /// Guesses that were right.
    pub right: usize,
    /// A mechanism of less epsilon would let so many be right only with probability 1 - confidence.
    pub lower_bound: f64,
}

/// Judges an attack. `scores` has one number per canary, larger where the canary seems to have
/// taken part; `took_part` has the coins. The `guesses` largest and smallest scores, half of each,
/// are guessed; all other coins are left open.
///
/// Answers a lower bound of 0 where the guesses prove nothing.
pub fn one_run(scores: &[f64], took_part: &[bool], guesses: usize, delta: f64, confidence: f64) -> OneRunReport {
    let canaries = scores.len().min(took_part.len());
    let guesses = guesses.min(canaries) / 2 * 2;
    let mut order: Vec<usize> = (0..canaries).collect();
    order.sort_by(|left, right| scores[*left].total_cmp(&scores[*right]));
    let out = order.iter().take(guesses / 2).filter(|canary| !took_part[**canary]).count();
    let inside = order.iter().rev().take(guesses / 2).filter(|canary| took_part[**canary]).count();
    let right = out + inside;
    let lower_bound = lower_bound(canaries, guesses, right, delta, 1.0 - confidence);
    OneRunReport { canaries, guesses, right, lower_bound }
}

/// The largest epsilon under which so many right guesses have a probability below `rare`.
fn lower_bound(canaries: usize, guesses: usize, right: usize, delta: f64, rare: f64) -> f64 {
    let is_refuted = |epsilon: f64| probability(canaries, guesses, right, epsilon, delta) < rare;
    if guesses == 0 || !is_refuted(0.0) {
        return 0.0;
    }
    let mut refuted = 0.0;
    let mut possible = 64.0;
    for _ in 0..60 {
        let middle = 0.5 * (refuted + possible);
        if is_refuted(middle) { refuted = middle } else { possible = middle }
    }
    refuted
}

/// At most so likely are `right` or more of `guesses` right under (epsilon, delta).
fn probability(canaries: usize, guesses: usize, right: usize, epsilon: f64, delta: f64) -> f64 {
    let each = 1.0 / (1.0 + (-epsilon).exp());
    // Tail sums from above: tail[i] = P[Bin >= i].
    let mut tail = vec![0.0; guesses + 2];
    for hits in (0..=guesses).rev() {
        tail[hits] = tail[hits + 1] + binomial(guesses, hits, each);
    }
    let alpha = (1..=right).map(|less| (tail[right - less] - tail[right]) / less as f64).fold(0.0, f64::max);
    (tail[right] + 2.0 * canaries as f64 * delta * alpha).min(1.0)
}

/// P[Bin(n, p) = k].
fn binomial(n: usize, k: usize, p: f64) -> f64 {
    let n = n as f64;
    let k = k as f64;
    // At the ends one of the factors is 0 * ln 0, which is 0.
    let term = |count: f64, chance: f64| if count == 0.0 { 0.0 } else { count * chance.ln() };
    (lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0) + term(k, p) + term(n - k, 1.0 - p)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_by_chance_proves_nothing_and_knowing_proves_what_so_few_guesses_can() {
        let coins: Vec<bool> = (0..1000).map(|canary| canary * 7 % 13 < 6).collect();
        let blind: Vec<f64> = (0..1000).map(|canary| f64::from(canary * 37 % 1000)).collect();
        assert!(one_run(&blind, &coins, 100, 1e-5, 0.95).lower_bound < 0.5);
        let knowing: Vec<f64> = coins.iter().map(|&coin| f64::from(u8::from(coin))).collect();
        let report = one_run(&knowing, &coins, 100, 1e-5, 0.95);
        // All of 100 right: p^100 = .05 at p = .9705, epsilon =
        // ln(p / (1 - p)) = 3.49; delta takes some off.
        assert_eq!((report.guesses, report.right), (100, 100));
        assert!((3.4..3.5).contains(&report.lower_bound), "{report:?}");
        assert!(one_run(&knowing, &coins, 100, 1e-2, 0.95).lower_bound < report.lower_bound);
    }

    #[test]
    fn probabilities_are_those_of_the_binomial() {
        assert!((binomial(4, 2, 0.5) - 0.375).abs() < 1e-12);
        assert!((binomial(3, 3, 1.0) - 1.0).abs() < 1e-12 && binomial(3, 0, 1.0) == 0.0);
        // 8 or more of 10 by chance: 56/1024.
        assert!((probability(10, 10, 8, 0.0, 0.0) - 56.0 / 1024.0).abs() < 1e-12);
        assert_eq!(one_run(&[], &[], 10, 1e-5, 0.95).lower_bound, 0.0);
    }
}
