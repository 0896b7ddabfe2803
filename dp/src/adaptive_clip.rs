//! A clip that follows a quantile of the norms it clips.
//!
//! Andrew, Thakkar, McMahan and Ramaswamy, "Differentially Private Learning with Adaptive Clipping" (2021), algorithm 1:
//! beside the sum of clipped changes one more number is released, how many changes were within the clip, and the clip
//! moves by it. Both releases have noise of their own and share one cohort. A client moves the sum by at most C and the
//! count by at most 1/2, and independent Gaussian noises multiply their Renyi moments, so that together they cost what
//! one mechanism of noise multiplier z costs, with 1/z^2 = 1/z_sum^2 + 1/z_count^2.

use serde::{Deserialize, Serialize};

use crate::client_plan::ClientPlanError;
use crate::lattice::{Lattice, LatticeError};
use crate::mechanism::{GaussianMechanism, MechanismError};

/// What one client moves the count by: it adds this when its change was within the clip, takes it away when not, and
/// does neither when it is not there.
const HALF: f64 = 0.5;
/// Standard deviation of the count's noise over the cohort: 1/20, as the paper has it.
const COUNT_NOISE: f64 = 0.05;
/// With more noise than this, over [`HALF`], larger cohorts would gain nothing.
const MOST_COUNT_NOISE: f64 = 1000.0;
/// Learning rate of the clip: eta_C of the paper, 0.2.
const RATE: f64 = 0.2;
/// Share of the clip from which a norm counts as clipped: what was scaled down to the clip is rounded on its way here,
/// in bfloat16 by up to 1/256.
const CLIPPED_FROM: f64 = 0.99;
/// The count may raise the noise on the sum by a tenth.
const MOST_RISE: f64 = 1.1;
/// Clips beyond it have no lattice.
const WIDEST: f64 = 1e30;

/// How a clip moves from round to round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveClip {
    quantile: f64,
    cohort: u32,
}

impl AdaptiveClip {
    /// A clip that moves until the share `quantile` of the changes of a cohort is within it, beside noise of
    /// `noise_multiplier` in all.
    ///
    /// # Errors
    /// A cohort so small that its count would need most of the noise.
    pub(crate) fn new(quantile: f64, cohort: u32, noise_multiplier: f64) -> Result<Self, ClientPlanError> {
        let adaptive = Self { quantile, cohort };
        if adaptive.sum_noise_multiplier(noise_multiplier) <= MOST_RISE * noise_multiplier {
            return Ok(adaptive);
        }
        let share = (1.0 - 1.0 / (MOST_RISE * MOST_RISE)).sqrt();
        let least = noise_multiplier * HALF / (COUNT_NOISE * share);
        Err(ClientPlanError::AdaptiveCohort { cohort, noise_multiplier, least: least.ceil() })
    }

    /// The share of changes that is to be within the clip.
    pub fn quantile(&self) -> f64 {
        self.quantile
    }

    /// Standard deviation of the count's noise over [`HALF`].
    fn count_noise_multiplier(&self) -> f64 {
        (f64::from(self.cohort) * COUNT_NOISE / HALF).min(MOST_COUNT_NOISE)
    }

    /// What is left for the sum of a noise multiplier in all: a larger one. Not a number or infinite where the count
    /// alone costs as much.
    pub(crate) fn sum_noise_multiplier(&self, noise_multiplier: f64) -> f64 {
        (noise_multiplier.powi(-2) - self.count_noise_multiplier().powi(-2)).sqrt().recip()
    }

    /// A count of one round's changes, which are clipped to `clip`.
    ///
    /// # Errors
    /// opendp or the sampler refuses the noise.
    pub fn tally(&self, clip: f64) -> Result<Tally, MechanismError> {
        let lattice = Lattice::new(HALF, self.count_noise_multiplier(), 1)?;
        Ok(Tally { adaptive: *self, clip, mechanism: GaussianMechanism::new(lattice)?, sum: [0] })
    }
}

/// How many of a round's changes were within the clip, before its noise: private, and never written anywhere.
pub struct Tally {
    adaptive: AdaptiveClip,
    clip: f64,
    mechanism: GaussianMechanism,
    sum: [i64; 1],
}

impl Tally {
    /// Counts a change by its L2 norm. One that is not a number was not within the clip.
    ///
    /// # Errors
    /// None for a count of one number.
    pub fn add(&mut self, norm: f64) -> Result<(), LatticeError> {
        let vote = if norm <= CLIPPED_FROM * self.clip { HALF } else { -HALF };
        let _ = self.mechanism.lattice().add(&[&[vote]], &mut self.sum)?;
        Ok(())
    }

    /// Draws the count's noise and gives the clip of the next round. To be called once, after the round's release was
    /// charged: the charge covers both.
    ///
    /// # Errors
    /// No randomness, or opendp's refusal.
    pub fn next_clip(mut self) -> Result<f64, MechanismError> {
        let excess: f64 = self.mechanism.release(&self.sum)?.iter().sum();
        let within = (HALF + excess / f64::from(self.adaptive.cohort)).clamp(0.0, 1.0);
        let next = self.clip * (-RATE * (within - self.adaptive.quantile)).exp();
        Ok(next.clamp(1.0 / WIDEST, WIDEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_and_count_cost_what_was_promised() {
        // A hundred clients hardly pay for the count.
        let adaptive = AdaptiveClip::new(0.5, 100, 1.0).unwrap();
        let (sum, count) = (adaptive.sum_noise_multiplier(1.0), adaptive.count_noise_multiplier());
        assert!((sum - 1.005).abs() < 1e-4 && count == 10.0, "{sum} {count}");
        assert!((sum.powi(-2) + count.powi(-2) - 1.0).abs() < 1e-12);
        // The mechanisms that are really drawn from cost no more, in opendp's own figures.
        let of_sum = GaussianMechanism::new(Lattice::new(0.37, sum, 9).unwrap()).unwrap();
        let rho = of_sum.rho().unwrap() + adaptive.tally(0.37).unwrap().mechanism.rho().unwrap();
        assert!(rho <= 0.5 * (1.0 + 1e-12) && rho > 0.4999, "{rho}");
    }

    #[test]
    fn cohorts_too_small_for_a_count_are_refused() {
        for cohort in [2, 10, 24] {
            let refusal = AdaptiveClip::new(0.5, cohort, 1.0).unwrap_err().to_string();
            assert!(refusal.contains("at least 25"), "{refusal}");
        }
        AdaptiveClip::new(0.5, 25, 1.0).unwrap();
        AdaptiveClip::new(0.5, 25, 1.1).unwrap_err();
    }

    #[test]
    fn a_clip_finds_its_quantile_and_follows_it() {
        let adaptive = AdaptiveClip::new(0.75, 200, 1.0).unwrap();
        // Norms from 1/200 to 1 and later three times as large: their quantile is 0.75, then 2.25.
        let run = |clip: f64, scale: f64| {
            (0..150).fold(clip, |clip, _| {
                let mut tally = adaptive.tally(clip).unwrap();
                (1..=200).for_each(|i| tally.add(scale * f64::from(i) / 200.0).unwrap());
                tally.next_clip().unwrap()
            })
        };
        for start in [0.01, 0.7, 40.0] {
            let clip = run(start, 1.0);
            assert!((clip / 0.75 - 1.0).abs() < 0.15, "from {start} to {clip}");
            let clip = run(clip, 3.0);
            assert!((clip / 2.25 - 1.0).abs() < 0.15, "then to {clip}");
        }
    }

    #[test]
    fn what_was_scaled_down_counts_as_clipped_and_an_absent_client_as_neither() {
        // So little noise beside a cohort of two that it cannot hide the direction.
        let adaptive = AdaptiveClip::new(0.5, 1000, 1.0).unwrap();
        let next = |norms: &[f64]| {
            let mut tally = adaptive.tally(2.0).unwrap();
            norms.iter().for_each(|&norm| tally.add(norm).unwrap());
            tally.next_clip().unwrap()
        };
        let all = |norm| vec![norm; 1000];
        for clipped in [2.0, 2.0 * (1.0 - 1.0 / 256.0), 7.0, f64::NAN, f64::INFINITY] {
            assert!(next(&all(clipped)) > 2.0 * (0.05f64).exp(), "{clipped}");
        }
        assert!(next(&all(1.9)) < 2.0 * (-0.05f64).exp());
        let nobody = next(&[]);
        assert!((nobody / 2.0 - 1.0).abs() < 0.1, "{nobody}");
    }
}
