//! The next token out of the logits: the likeliest, or drawn.
//!
//! Order of the filters, as in transformers: temperature, the k likeliest, then the nucleus
//! (Holtzman et al. 2020): the smallest set of likeliest tokens whose probabilities sum to at least
//! p. The number that decides is the BLAKE3 of seed, text and position, so a text depends on its
//! seed and on nothing drawn before.

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the likeliest token.
    pub temperature: f64,
    /// Share of the probability that the tokens in question make up, above 0 to 1.
    pub top_p: f64,
    /// How many of the likeliest tokens come into question; 0 = all.
    pub top_k: usize,
    /// Seed.
    pub seed: u64,
}

impl Sampling {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 }
    }

    /// What is wrong with an option, by its name and with what it takes.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            let problem = format!("is {}; it takes 0 (the likeliest token) or a number above", self.temperature);
            return Some(("--temperature", problem));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Some(("--top-p", format!("is {}; it takes a number above 0, at most 1 (all tokens)", self.top_p)));
        }
        None
    }

    /// The token at `position` of text number `text`. Of equal largest logits the first counts as
    /// the likeliest; a logit that is no number never comes into question. `None` when there is no
    /// number among the logits.
    pub fn pick(&self, logits: &[f32], text: u64, position: u64) -> Option<usize> {
        if self.temperature == 0.0 {
            return likeliest(logits);
        }
        let choices = self.distribution(logits);
        let mut left = uniform(self.seed, text, position);
        for &(token, probability) in &choices {
            left -= probability;
            if left < 0.0 {
                return Some(token);
            }
        }
        choices.last().map(|&(token, _)| token) // rounding left a rest
    }

    /// The tokens that come into question with their probabilities, likeliest first; of equals, the
    /// first in the vocabulary. For a temperature above 0.
    pub fn distribution(&self, logits: &[f32]) -> Vec<(usize, f64)> {
        let numbers = logits.iter().enumerate().filter(|(_, logit)| !logit.is_nan());
        let mut choices: Vec<(usize, f64)> =
            numbers.map(|(token, &logit)| (token, f64::from(logit) / self.temperature)).collect();
        let by_logit = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.top_k > 0 && self.top_k < choices.len() {
            choices.select_nth_unstable_by(self.top_k - 1, by_logit);
            choices.truncate(self.top_k);
        }
        choices.sort_unstable_by(by_logit);
        let largest = choices.first().map_or(0.0, |&(_, logit)| logit);
        choices.iter_mut().for_each(|(_, weight)| *weight = (*weight - largest).exp());
        normalise(&mut choices);
        // At 1 nothing is left out, however little rounding leaves to it.
        if self.top_p < 1.0 {
            let mut mass = 0.0;
            let mut kept = 0;
            while kept < choices.len() && mass < self.top_p {
                mass += choices[kept].1;
                kept += 1;
            }
            choices.truncate(kept);
            normalise(&mut choices);
        }
        choices
    }
}

/// Index of the first largest number.
pub fn likeliest(logits: &[f32]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, logit) in logits.iter().enumerate() {
        if !logit.is_nan() && best.is_none_or(|best| *logit > logits[best]) {
            best = Some(index);
        }
    }
    best
}

fn normalise(choices: &mut [(usize, f64)]) {
    let sum: f64 = choices.iter().map(|(_, weight)| weight).sum();
    choices.iter_mut().for_each(|(_, weight)| *weight /= sum);
}

/// A number from 0 to below 1.
fn uniform(seed: u64, text: u64, position: u64) -> f64 {
    let mut hasher = blake3::Hasher::new_derive_key("rondo sampling v1");
    for number in [seed, text, position] {
        hasher.update(&number.to_le_bytes());
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::f32::consts::LN_2;

    use super::*;

    /// Logits of the probabilities 0.5, 0.25, 0.125, 0.125 in mixed order, shifted: softmax does
    /// not see a shift.
    const LOGITS: [f32; 4] = [5.0 - 3.0 * LN_2, 5.0 - LN_2, 5.0 - 3.0 * LN_2, 5.0 - 2.0 * LN_2];

    fn sampling(temperature: f64, top_k: usize, top_p: f64) -> Sampling {
        Sampling { temperature, top_p, top_k, seed: 3 }
    }

    fn assert_distribution(sampling: Sampling, expected: &[(usize, f64)]) {
        let found = sampling.distribution(&LOGITS);
        assert_eq!(found.len(), expected.len(), "{sampling:?}: {found:?}");
        for ((token, probability), (expected_token, expected)) in found.iter().zip(expected) {
            assert_eq!(token, expected_token, "{sampling:?}: {found:?}");
            assert!((probability - expected).abs() < 1e-6, "{sampling:?}: {found:?}");
        }
    }

    #[test]
    fn filters_equal_hand_calculation() {
        assert_distribution(sampling(1.0, 0, 1.0), &[(1, 0.5), (3, 0.25), (0, 0.125), (2, 0.125)]);
        // Temperature 1/2 squares the probabilities: 16 : 4 : 1 : 1 of 22.
        let squared = [(1, 16.0 / 22.0), (3, 4.0 / 22.0), (0, 1.0 / 22.0), (2, 1.0 / 22.0)];
        assert_distribution(sampling(0.5, 0, 1.0), &squared);
        assert_distribution(sampling(1.0, 2, 1.0), &[(1, 2.0 / 3.0), (3, 1.0 / 3.0)]);
        // Of equals at the border the first in the vocabulary stays.
        assert_distribution(sampling(1.0, 3, 1.0), &[(1, 4.0 / 7.0), (3, 2.0 / 7.0), (0, 1.0 / 7.0)]);
        // 0.5 is not 0.6: the token that crosses p stays in.
        assert_distribution(sampling(1.0, 0, 0.6), &[(1, 2.0 / 3.0), (3, 1.0 / 3.0)]);
        assert_distribution(sampling(1.0, 0, 0.4), &[(1, 1.0)]);
        // The nucleus is that of what the k likeliest leave: 2/3 alone is above 0.6.
        assert_distribution(sampling(1.0, 2, 0.6), &[(1, 1.0)]);
        // ... and of what the temperature makes: 16/22 is above 0.7.
        assert_distribution(sampling(0.5, 0, 0.7), &[(1, 1.0)]);
        assert_distribution(sampling(1e-6, 0, 1.0), &[(1, 1.0), (3, 0.0), (0, 0.0), (2, 0.0)]);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let sampling = sampling(0.9, 3, 0.95);
        let distribution = sampling.distribution(&LOGITS);
        let draws = 20_000;
        let mut counts = [0_u32; 4];
        for position in 0..draws {
            counts[sampling.pick(&LOGITS, 0, position).unwrap()] += 1;
        }
        for (token, probability) in distribution {
            let share = f64::from(counts[token]) / draws as f64;
            let deviation = (probability * (1.0 - probability) / draws as f64).sqrt();
            assert!((share - probability).abs() < 4.0 * deviation, "token {token}: {share}, expected {probability}");
        }
        assert_eq!(counts[2], 0, "the filters leave it out");
    }

    #[test]
    fn seed_text_and_position_alone_decide() {
        let draw = |seed, text| -> Vec<usize> {
            let sampling = Sampling { seed, ..sampling(1.0, 0, 1.0) };
            (0..64).map(|position| sampling.pick(&LOGITS, text, position).unwrap()).collect()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
    }

    #[test]
    fn greedy_is_the_first_largest_and_never_a_nan() {
        let greedy = Sampling::greedy();
        assert_eq!(greedy.pick(&[f32::NAN, 1.0, 3.0, 3.0, f32::NEG_INFINITY], 0, 0), Some(2));
        assert_eq!(greedy.pick(&[f32::NAN], 0, 0), None);
        let drawn = sampling(1.0, 0, 1.0);
        assert!((0..200).all(|n| drawn.pick(&[f32::NAN, 0.0, f32::NEG_INFINITY], 0, n) == Some(1)));
        assert_eq!(drawn.pick(&[f32::NAN], 0, 0), None);
    }

    #[test]
    fn options_out_of_range_are_named() {
        let problem = |sampling: Sampling| sampling.problem().map(|(option, _)| option);
        assert_eq!(problem(sampling(f64::NAN, 0, 1.0)), Some("--temperature"));
        assert_eq!(problem(sampling(-1.0, 0, 1.0)), Some("--temperature"));
        assert_eq!(problem(sampling(1.0, 0, 0.0)), Some("--top-p"));
        assert_eq!(problem(sampling(1.0, 0, 1.1)), Some("--top-p"));
        assert_eq!(problem(sampling(1.0, 0, 1.0)), None);
    }
}
