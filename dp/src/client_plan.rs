//! How a coordinator keeps a promise per client: how much noise, by what
//! the sum is divided, and how many releases fit.

use serde::{Deserialize, Serialize};

use crate::accountant::Accountant;
use crate::adaptive_clip::AdaptiveClip;
use crate::calibration::{self, Figure, Target};
use crate::client_plan_error::{ClientPlanError, LEAST_COHORT};
use crate::curve::Curve;
use crate::event::{AccountingError, Event};
use crate::privacy::Privacy;

/// Noise on the sum of clipped changes, for one run.
///
/// Adjacency: all that one client contributes, in every round, or nothing in its place. Its seat is
/// taken either way, so the bound at a sampling rate of 1 holds for whatever cohort is drawn, so
/// long as none of it makes room for another. Below 1 it holds for those who do not see who was
/// drawn, and only when every client's part in a round hangs on its own coin: no cohort may be
/// drawn again, or cut, for its size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClientPlan {
    /// L2 clip norm of one client's change over all tensors it
    /// sends together; of an adaptive one the first.
    pub clip: f64,
    /// Whether and how the clip moves from round to round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveClip>,
    /// Standard deviation of the noise in units of the clip, as a release is charged.
    pub noise_multiplier: f64,
    /// Chance with which a client is in a round's cohort; 1 where nothing is gained by the draw.
    pub sampling_rate: f64,
    /// By what every noised sum is divided, however many clients
    /// were in it: a cohort as the run file declares it.
    pub divisor: f64,
    /// Releases that fit the budget. One that is made again after a crash counts again.
    pub releases: u32,
    /// The run's budget.
    pub epsilon: f64,
    /// Its chance of failure.
    pub delta: f64,
    /// L2 clip norm of one client's statistic in a warm-up that reads data: one more release,
    /// before the rounds, at the same rate and multiplier. Absent where no warm-up reads data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up_clip: Option<f64>,
}

impl ClientPlan {
    /// The plan for `rounds` rounds with (expected) cohorts of `cohort`. Without a
    /// noise multiplier of the run's own, the least noise whose whole schedule
    /// stays within the budget under the enforced figure.
    ///
    /// # Errors
    /// A promise of another unit; a cohort that hides nobody; delta at or above one over the
    /// clients that make such cohorts; a budget that not even one round fits.
    pub fn new(privacy: &Privacy, cohort: u32, rounds: u32) -> Result<Self, ClientPlanError> {
        let Privacy::Client { epsilon, delta, clip, noise_multiplier, sampling_rate, clip_quantile, warm_up_clip } =
            *privacy
        else {
            return Err(ClientPlanError::Unit { promise: privacy.statement() });
        };
        if cohort < LEAST_COHORT {
            return Err(ClientPlanError::Cohort { cohort });
        }
        let sampling_rate = sampling_rate.unwrap_or(1.0);
        let clients = f64::from(cohort) / sampling_rate;
        if delta >= 1.0 / clients {
            return Err(ClientPlanError::Delta { delta, clients: clients.round() });
        }
        let target = Target::new(epsilon, delta)?;
        let warm_up = u32::from(warm_up_clip.is_some());
        let all = u64::from(rounds) + u64::from(warm_up);
        let noise_multiplier = match noise_multiplier {
            Some(noise) => noise,
            None => calibration::noise_multiplier(target, sampling_rate, all, Figure::Enforced)?,
        };
        let adaptive =
            clip_quantile.map(|quantile| AdaptiveClip::new(quantile, cohort, noise_multiplier)).transpose()?;
        let fitting = calibration::steps(target, noise_multiplier, sampling_rate, &Curve::zero())?;
        let releases = u32::try_from(fitting).unwrap_or(u32::MAX);
        let divisor = f64::from(cohort);
        let plan =
            Self { clip, adaptive, noise_multiplier, sampling_rate, divisor, releases, epsilon, delta, warm_up_clip };
        if releases <= warm_up {
            let epsilon = plan.epsilon_after(1 + warm_up)?;
            return Err(ClientPlanError::FirstRound { noise_multiplier, epsilon, limit: plan.epsilon });
        }
        Ok(plan)
    }

    /// The plan of the warm-up's release, which clips to [`ClientPlan::warm_up_clip`] for good.
    /// `None` where no warm-up reads data.
    pub fn of_warm_up(&self) -> Option<Self> {
        self.warm_up_clip.map(|clip| Self { clip, adaptive: None, ..*self })
    }

    /// Standard deviation of the noise on the sum of changes in units
    /// of the clip: [`Self::noise_multiplier`], or a little more where
    /// a count of clipped changes shares the charge.
    pub fn sum_noise_multiplier(&self) -> f64 {
        let shared = |adaptive: AdaptiveClip| adaptive.sum_noise_multiplier(self.noise_multiplier);
        self.adaptive.map_or(self.noise_multiplier, shared)
    }

    /// What so many rounds release.
    ///
    /// # Errors
    /// Numbers out of range, in a plan that was read from somewhere.
    pub fn event(&self, releases: u32) -> Result<Event, AccountingError> {
        Event::new(self.noise_multiplier, self.sampling_rate, releases.into())
    }

    /// The enforced epsilon of so many releases.
    ///
    /// # Errors
    /// As of [`ClientPlan::event`].
    pub fn epsilon_after(&self, releases: u32) -> Result<f64, AccountingError> {
        Curve::enforceable(&self.event(releases)?).epsilon_enforced(self.delta)
    }

    /// The same by privacy loss distribution, tighter: [`Accountant::epsilon_pld`].
    ///
    /// # Errors
    /// As of [`ClientPlan::event`], or where the figure's grid cannot hold the losses.
    pub fn epsilon_pld_after(&self, releases: u32) -> Result<f64, AccountingError> {
        let mut released = Accountant::new();
        released.record(self.event(releases)?);
        released.epsilon_pld(self.delta)
    }

    /// The enforced epsilon towards whoever sees the cohorts, for whom the draw hides nothing.
    ///
    /// # Errors
    /// As of [`ClientPlan::event`].
    pub fn epsilon_seen_after(&self, releases: u32) -> Result<f64, AccountingError> {
        Self { sampling_rate: 1.0, ..*self }.epsilon_after(releases)
    }

    /// Expected L2 norm of the noise in the mean of
    /// changes of `dimension` numbers: z C sqrt(d) / W.
    pub fn noise_norm(&self, dimension: u64) -> f64 {
        self.sum_noise_multiplier() * self.clip * (dimension as f64).sqrt() / self.divisor
    }

    /// The clip over [`Self::noise_norm`]: above it no mean of changes can rise.
    pub fn signal_to_noise(&self, dimension: u64) -> f64 {
        self.clip / self.noise_norm(dimension)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::Terms;

    const TERMS: Terms = Terms::new(3.0, 1e-5, 0.5);

    fn promise(noise_multiplier: Option<f64>, sampling_rate: Option<f64>) -> Privacy {
        Privacy::new("client", Terms { noise_multiplier, sampling_rate, ..TERMS }).unwrap()
    }

    #[test]
    fn the_noise_is_just_enough_for_all_rounds() {
        for rate in [None, Some(0.2)] {
            let plan = ClientPlan::new(&promise(None, rate), 10, 20).unwrap();
            assert_eq!((plan.releases, plan.divisor, plan.sampling_rate), (20, 10.0, rate.unwrap_or(1.0)));
            let whole = plan.epsilon_after(20).unwrap();
            assert!(whole <= 3.0 && whole > 2.99 && plan.epsilon_after(21).unwrap() > 3.0, "{whole}");
            assert!(plan.epsilon_pld_after(20).unwrap() < whole);
        }
    }

    #[test]
    fn a_paid_warm_up_is_one_more_release() {
        let paid = |noise_multiplier| {
            let terms = Terms { noise_multiplier, warm_up_clip: Some(2.0), ..TERMS };
            Privacy::new("client", terms).unwrap()
        };
        let plan = ClientPlan::new(&paid(None), 10, 20).unwrap();
        let free = ClientPlan::new(&promise(None, None), 10, 20).unwrap();
        assert_eq!((plan.releases, free.releases), (21, 20));
        assert!(plan.epsilon_after(21).unwrap() <= 3.0 && plan.epsilon_after(22).unwrap() > 3.0);
        assert!(plan.noise_multiplier > free.noise_multiplier);
        let warm_up = plan.of_warm_up().unwrap();
        assert_eq!(warm_up, ClientPlan { clip: 2.0, ..plan });
        assert_eq!((warm_up.event(1), free.of_warm_up()), (plan.event(1), None));
        // Noise with which one release fits and no second
        // has no room for a round after the warm-up.
        let one = (1..400).map(|tenths| f64::from(tenths) / 100.0);
        let mut one = one
            .filter(|&noise| ClientPlan::new(&promise(Some(noise), None), 10, 1).is_ok_and(|plan| plan.releases == 1));
        let noise = one.next().unwrap();
        let refused = ClientPlan::new(&paid(Some(noise)), 10, 1).unwrap_err().to_string();
        assert!(refused.contains("first round"), "{refused}");
    }

    #[test]
    fn without_coins_it_is_the_plain_gaussian_mechanism() {
        // dp-accounting 0.6.0: z = 4, ten rounds, everybody in each of them.
        let plan = ClientPlan::new(&promise(Some(4.0), None), 10, 10).unwrap();
        assert!((plan.epsilon_pld_after(10).unwrap() - 3.341).abs() < 1e-3);
        assert_eq!(plan.epsilon_after(7).unwrap(), plan.epsilon_seen_after(7).unwrap());
        let sampled = ClientPlan::new(&promise(Some(4.0), Some(0.1)), 10, 10).unwrap();
        assert!(sampled.releases > 10 * plan.releases && plan.releases > 1, "{} {}", sampled.releases, plan.releases);
        assert_eq!(sampled.epsilon_seen_after(7).unwrap(), plan.epsilon_after(7).unwrap());
        assert!(sampled.epsilon_after(7).unwrap() < 0.2 * plan.epsilon_after(7).unwrap());
    }

    #[test]
    fn given_noise_decides_how_many_releases_fit() {
        let plan = ClientPlan::new(&promise(Some(3.0), None), 4, 1000).unwrap();
        assert!(plan.epsilon_after(plan.releases).unwrap() <= 3.0);
        assert!(plan.epsilon_after(plan.releases + 1).unwrap() > 3.0);
    }

    #[test]
    fn promises_that_cannot_be_kept_are_refused() {
        let refusal = |privacy: &Privacy, cohort| ClientPlan::new(privacy, cohort, 5).unwrap_err().to_string();
        assert!(refusal(&promise(None, None), 1).contains("cohort of 1 hides nobody"));
        assert!(refusal(&promise(None, None), 200_000).contains("not below 1/200000"));
        assert!(refusal(&promise(None, Some(0.01)), 2_000).contains("not below 1/200000"));
        assert!(refusal(&promise(Some(0.2), None), 10).contains("first round"));
        let example = Privacy::new("example", TERMS).unwrap();
        assert!(refusal(&example, 10).contains("not for the coordinator"));
    }

    #[test]
    fn an_adaptive_clip_costs_the_same_and_noises_the_sum_a_little_more() {
        let terms = Terms { noise_multiplier: Some(2.0), ..TERMS };
        let fixed = Privacy::new("client", terms).unwrap();
        let adaptive = Privacy::new("client", Terms { clip_quantile: Some(0.5), ..terms }).unwrap();
        let plan = |privacy, cohort| ClientPlan::new(privacy, cohort, 5);
        let fixed = plan(&fixed, 60).unwrap();
        let moving = plan(&adaptive, 60).unwrap();
        assert_eq!(fixed.event(3).unwrap(), moving.event(3).unwrap());
        assert!(moving.sum_noise_multiplier() > 2.0 && moving.sum_noise_multiplier() < 2.2);
        assert_eq!(fixed.sum_noise_multiplier(), 2.0);
        let refusal = plan(&adaptive, 20).unwrap_err().to_string();
        assert!(refusal.contains("cohort of at least 49"), "{refusal}");
    }

    #[test]
    fn the_noise_is_compared_with_the_clip() {
        let plan = ClientPlan::new(&promise(Some(2.0), None), 10, 1).unwrap();
        assert!((plan.noise_norm(10_000) - 2.0 * 0.5 * 100.0 / 10.0).abs() < 1e-12);
        assert!((plan.signal_to_noise(10_000) - 0.05).abs() < 1e-12);
    }
}
