//! A clip that follows a quantile of the norms it clips.
//!
//! Andrew, Thakkar, McMahan and Ramaswamy, "Differentially Private Learning with Adaptive Clipping"
//! (2021), algorithm 1: beside the sum of clipped changes one more number is released, how many
//! changes were within the clip, and the clip moves by it. Both releases have noise of their own
//! and share one cohort. A client moves the sum by at most C and the count by at most 1/2, and
//! independent Gaussian noises multiply their Renyi moments, so that together they cost what one
//! mechanism of noise multiplier z costs, with 1/z^2 = 1/z_sum^2 + 1/z_count^2.

use serde::{Deserialize, Serialize};

use crate::client_plan_error::ClientPlanError;

/// What one client moves the count by: it adds this when its change was within the clip, takes it
/// away when not, and does neither when it is not there.
pub(crate) const HALF: f64 = 0.5;
/// Standard deviation of the count's noise over the cohort: 1/20, as the paper has it.
const COUNT_NOISE: f64 = 0.05;
/// With more noise than this, over [`HALF`], larger cohorts would gain nothing.
const MOST_COUNT_NOISE: f64 = 1000.0;
/// The count may raise the noise on the sum by a tenth.
const MOST_RISE: f64 = 1.1;

/// How a clip moves from round to round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveClip {
    quantile: f64,
    cohort: u32,
}

impl AdaptiveClip {
    /// A clip that moves until the share `quantile` of the changes of a cohort is within it, beside
    /// noise of `noise_multiplier` in all.
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

    /// The expected cohort, by which a count is divided.
    #[cfg(feature = "noise")]
    pub(crate) fn cohort(&self) -> u32 {
        self.cohort
    }

    /// Standard deviation of the count's noise over [`HALF`].
    pub(crate) fn count_noise_multiplier(&self) -> f64 {
        (f64::from(self.cohort) * COUNT_NOISE / HALF).min(MOST_COUNT_NOISE)
    }

    /// What is left for the sum of a noise multiplier in all: a larger one. Not a number or
    /// infinite where the count alone costs as much.
    pub(crate) fn sum_noise_multiplier(&self, noise_multiplier: f64) -> f64 {
        (noise_multiplier.powi(-2) - self.count_noise_multiplier().powi(-2)).sqrt().recip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cohorts_too_small_for_a_count_are_refused() {
        for cohort in [2, 10, 24] {
            let refusal = AdaptiveClip::new(0.5, cohort, 1.0).unwrap_err().to_string();
            assert!(refusal.contains("at least 25"), "{refusal}");
        }
        AdaptiveClip::new(0.5, 25, 1.0).unwrap();
        AdaptiveClip::new(0.5, 25, 1.1).unwrap_err();
    }
}
