//! The noised count by which an adaptive clip moves: see
//! `adaptive_clip.rs` for the paper and the privacy argument.

use crate::adaptive_clip::{AdaptiveClip, HALF};
use crate::lattice::{Lattice, LatticeError};
use crate::mechanism::{GaussianMechanism, MechanismError};

/// Learning rate of the clip: eta_C of the paper, 0.2.
const RATE: f64 = 0.2;
/// Share of the clip from which a norm counts as clipped: what was scaled down to the clip is
/// rounded on its way here, in bfloat16 by up to 1/256.
const CLIPPED_FROM: f64 = 0.99;
/// Clips beyond it have no lattice.
const WIDEST: f64 = 1e30;

impl AdaptiveClip {
    /// A count of one round's changes, which are clipped to `clip`.
    ///
    /// # Errors
    /// opendp or the sampler refuses the noise.
    pub fn tally(&self, clip: f64) -> Result<Tally, MechanismError> {
        let lattice = Lattice::new(HALF, self.count_noise_multiplier(), 1)?;
        Ok(Tally { adaptive: *self, clip, mechanism: GaussianMechanism::new(lattice)?, sum: [0] })
    }
}

/// How many of a round's changes were within the clip, before
/// its noise: private, and never written anywhere.
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

    /// Draws the count's noise and gives the clip of the next round. To be called once, after the
    /// round's release was charged: the charge covers both.
    ///
    /// # Errors
    /// No randomness, or opendp's refusal.
    pub fn next_clip(mut self) -> Result<f64, MechanismError> {
        let excess: f64 = self.mechanism.release(&self.sum)?.iter().sum();
        let within = (HALF + excess / f64::from(self.adaptive.cohort())).clamp(0.0, 1.0);
        let next = self.clip * (-RATE * (within - self.adaptive.quantile())).exp();
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
        let sum = adaptive.sum_noise_multiplier(1.0);
        let count = adaptive.count_noise_multiplier();
        assert!((sum - 1.005).abs() < 1e-4 && count == 10.0, "{sum} {count}");
        assert!((sum.powi(-2) + count.powi(-2) - 1.0).abs() < 1e-12);
        // The mechanisms that are really drawn from cost no more, in opendp's own figures.
        let of_sum = GaussianMechanism::new(Lattice::new(0.37, sum, 9).unwrap()).unwrap();
        let rho = of_sum.rho().unwrap() + adaptive.tally(0.37).unwrap().mechanism.rho().unwrap();
        assert!(rho <= 0.5 * (1.0 + 1e-12) && rho > 0.4999, "{rho}");
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
