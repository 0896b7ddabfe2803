//! How one data owner keeps a promise per example: how much noise, and how many rounds.

use serde::{Deserialize, Serialize};

use crate::accountant::Accountant;
use crate::calibration::{self, CalibrationError, Figure, Target};
use crate::curve::Curve;
use crate::event::{AccountingError, Event};
use crate::privacy::Privacy;

/// What a run asks of every data owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Expected examples of a step's batch.
    pub batch: u32,
    /// Steps of a round.
    pub steps: u32,
    /// Rounds of the run.
    pub rounds: u32,
}

/// Why a data owner cannot keep a promise.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The promise is not one per example.
    #[error("the run promises {promise}, which a client cannot keep on its own")]
    Unit {
        /// The promise in one line.
        promise: String,
    },
    /// A delta that lets whole records through.
    #[error(
        "delta {delta:e} is not below 1/{examples}, one over this client's number of training examples: a mechanism that \
         publishes one of them in full would keep it; the run needs a smaller delta"
    )]
    Delta {
        /// The run's.
        delta: f64,
        /// Training examples here.
        examples: u64,
    },
    /// Not one round fits.
    #[error(
        "noise multiplier {noise_multiplier} spends epsilon {epsilon:.4} in the first round, more than the {limit} of the \
         whole run, with batches of {batch} out of {examples} examples"
    )]
    FirstRound {
        /// The run's.
        noise_multiplier: f64,
        /// What a round costs.
        epsilon: f64,
        /// The run's epsilon.
        limit: f64,
        /// Expected batch.
        batch: u32,
        /// Training examples here.
        examples: u64,
    },
    /// There is nothing to train on.
    #[error("there is no training example")]
    Empty,
    /// No noise is enough, or a number is out of range.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A number is out of range.
    #[error(transparent)]
    Accounting(#[from] AccountingError),
}

/// DP-SGD for one run at one data owner. Adjacency: one example, or nothing in its place. The
/// number of places fixes the sampling rate and counts as public, so that the bounds for an example
/// added or removed at that rate apply.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ExamplePlan {
    /// L2 clip norm of one example's gradient over all trained tensors together.
    pub clip: f64,
    /// Standard deviation of the noise in units of the clip.
    pub noise_multiplier: f64,
    /// Chance with which every example, by its own coin, is in a step's batch.
    pub sampling_rate: f64,
    /// Expected size of a batch, by which every noised sum
    /// is divided, however large the batch turned out.
    pub expected_batch: f64,
    /// Noised steps of a round.
    pub steps: u32,
    /// Rounds that fit the budget, at most the run's.
    pub rounds: u32,
    /// The run's budget.
    pub epsilon: f64,
    /// Its chance of failure.
    pub delta: f64,
    /// L2 clip norm of one example's statistic in a warm-up that reads data: one more noised step,
    /// before the rounds, at the same rate and multiplier. Absent where no warm-up reads data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up_clip: Option<f64>,
}

impl ExamplePlan {
    /// The plan for `examples` training examples. Without a noise multiplier of the run's own, the
    /// least noise whose whole schedule stays within the budget under the enforced figure.
    ///
    /// # Errors
    /// A promise of another unit; delta at or above
    /// 1/examples; a budget that not even one round fits.
    pub fn new(privacy: &Privacy, examples: u64, schedule: Schedule) -> Result<Self, PlanError> {
        let Privacy::Example { epsilon, delta, clip, noise_multiplier, warm_up_clip } = *privacy else {
            return Err(PlanError::Unit { promise: privacy.statement() });
        };
        let Schedule { batch, steps, rounds } = schedule;
        if examples == 0 {
            return Err(PlanError::Empty);
        }
        if delta >= 1.0 / examples as f64 {
            return Err(PlanError::Delta { delta, examples });
        }
        let sampling_rate = (f64::from(batch) / examples as f64).min(1.0);
        let target = Target::new(epsilon, delta)?;
        let warm_up = u64::from(warm_up_clip.is_some());
        let all = u64::from(steps) * u64::from(rounds) + warm_up;
        let noise = match noise_multiplier {
            Some(noise) => noise,
            None => calibration::noise_multiplier(target, sampling_rate, all, Figure::Enforced)?,
        };
        let nothing = Curve::zero();
        let left = calibration::steps(target, noise, sampling_rate, &nothing)?.saturating_sub(warm_up);
        let fitting = left / u64::from(steps.max(1));
        let plan = Self {
            clip,
            noise_multiplier: noise,
            sampling_rate,
            expected_batch: sampling_rate * examples as f64,
            steps,
            rounds: rounds.min(u32::try_from(fitting).unwrap_or(u32::MAX)),
            epsilon,
            delta,
            warm_up_clip,
        };
        if plan.rounds == 0 {
            let first = plan.event(u64::from(steps) + warm_up)?;
            let epsilon = Curve::enforceable(&first).epsilon_enforced(delta)?;
            return Err(PlanError::FirstRound {
                noise_multiplier: noise,
                epsilon,
                limit: plan.epsilon,
                batch,
                examples,
            });
        }
        Ok(plan)
    }

    /// What one round releases.
    ///
    /// # Errors
    /// Numbers out of range, in a plan that was read from somewhere.
    pub fn round(&self) -> Result<Event, AccountingError> {
        self.event(self.steps.into())
    }

    /// What round `round` releases; 0 is the warm-up, which is one step where it reads data.
    ///
    /// # Errors
    /// As of [`ExamplePlan::round`].
    pub fn release_of(&self, round: u32) -> Result<Event, AccountingError> {
        self.event(self.steps_of(round).into())
    }

    /// Noised steps of round `round`; 0 is the warm-up.
    pub fn steps_of(&self, round: u32) -> u32 {
        if round == 0 && self.warm_up_clip.is_some() { 1 } else { self.steps }
    }

    /// L2 clip norm of round `round`; 0 is the warm-up.
    pub fn clip_of(&self, round: u32) -> f64 {
        self.warm_up_clip.filter(|_| round == 0).unwrap_or(self.clip)
    }

    /// The plan of the warm-up's step, which clips to
    /// [`ExamplePlan::warm_up_clip`]. `None` where no warm-up reads data.
    pub fn of_warm_up(&self) -> Option<Self> {
        self.warm_up_clip.map(|clip| Self { clip, ..*self })
    }

    /// What the warm-up, where it reads data, and all planned rounds release.
    ///
    /// # Errors
    /// As of [`ExamplePlan::round`].
    pub fn whole(&self) -> Result<Event, AccountingError> {
        self.rest(0, false)
    }

    /// What is left to release of the whole after so many rounds.
    /// `warmed_up` says whether the warm-up is behind.
    pub(crate) fn rest(&self, rounds: u32, warmed_up: bool) -> Result<Event, AccountingError> {
        let rounds = u64::from(self.rounds.saturating_sub(rounds));
        let warm_up = u64::from(self.warm_up_clip.is_some() && !warmed_up);
        self.event(u64::from(self.steps) * rounds + warm_up)
    }

    fn event(&self, steps: u64) -> Result<Event, AccountingError> {
        Event::new(self.noise_multiplier, self.sampling_rate, steps)
    }

    /// What so many rounds release.
    ///
    /// # Errors
    /// As of [`ExamplePlan::round`].
    pub fn rounds_of(&self, rounds: u32) -> Result<Event, AccountingError> {
        self.event(u64::from(self.steps) * u64::from(rounds))
    }

    /// Whether the run's budget has room for one more round after what the run released so far.
    ///
    /// # Errors
    /// As of [`ExamplePlan::round`].
    pub fn allows_another(&self, released: &Accountant) -> Result<bool, AccountingError> {
        Ok(self.cost_after_another(released)? <= self.epsilon)
    }

    /// The enforced epsilon of the run if one more round followed.
    ///
    /// # Errors
    /// As of [`ExamplePlan::round`].
    pub fn cost_after_another(&self, released: &Accountant) -> Result<f64, AccountingError> {
        self.cost_after(released, self.round()?)
    }

    /// The enforced epsilon of the run if `event` followed what it `released` so far.
    ///
    /// # Errors
    /// As of [`ExamplePlan::round`].
    pub fn cost_after(&self, released: &Accountant, event: Event) -> Result<f64, AccountingError> {
        let mut next = released.clone();
        next.record(event);
        next.epsilon_enforced(self.delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::Terms;

    const SCHEDULE: Schedule = Schedule { batch: 128, steps: 10, rounds: 6 };

    const TERMS: Terms = Terms::new(3.0, 1e-5, 1.0);

    fn promise(noise_multiplier: Option<f64>) -> Privacy {
        Privacy::new("example", Terms { noise_multiplier, ..TERMS }).unwrap()
    }

    #[test]
    fn the_noise_is_just_enough() {
        let plan = ExamplePlan::new(&promise(None), 2376, SCHEDULE).unwrap();
        let whole = Curve::of(&plan.whole().unwrap()).epsilon_enforced(1e-5).unwrap();
        assert!(whole <= 3.0 && whole > 2.999, "{whole}");
        assert_eq!(plan.rounds, 6);
        let less = Event::new(plan.noise_multiplier * 0.999, plan.sampling_rate, 60).unwrap();
        assert!(Curve::of(&less).epsilon_enforced(1e-5).unwrap() > 3.0);
    }

    #[test]
    fn given_noise_decides_how_many_rounds_fit() {
        let schedule = Schedule { rounds: 100, ..SCHEDULE };
        let plan = ExamplePlan::new(&promise(Some(1.1)), 2376, schedule).unwrap();
        assert!((2..100).contains(&plan.rounds), "{}", plan.rounds);
        let cost = |rounds| Curve::of(&plan.rounds_of(rounds).unwrap()).epsilon_enforced(1e-5).unwrap();
        assert!(cost(plan.rounds) <= 3.0 && cost(plan.rounds + 1) > 3.0);
        let mut released = Accountant::new();
        for round in 0..=plan.rounds {
            assert_eq!(plan.allows_another(&released).unwrap(), round < plan.rounds);
            released.record(plan.round().unwrap());
        }
    }

    #[test]
    fn a_paid_warm_up_is_one_more_step_of_the_whole() {
        let paid = |noise_multiplier| {
            Privacy::new("example", Terms { noise_multiplier, warm_up_clip: Some(0.5), ..TERMS }).unwrap()
        };
        let plan = ExamplePlan::new(&paid(None), 2376, SCHEDULE).unwrap();
        let free = ExamplePlan::new(&promise(None), 2376, SCHEDULE).unwrap();
        assert_eq!((plan.rounds, plan.whole().unwrap().steps(), free.whole().unwrap().steps()), (6, 61, 60));
        let of = |steps| {
            let event = Event::new(plan.noise_multiplier, plan.sampling_rate, steps).unwrap();
            Curve::enforceable(&event).epsilon_enforced(1e-5).unwrap()
        };
        assert_eq!(Curve::enforceable(&plan.whole().unwrap()).epsilon_enforced(1e-5).unwrap(), of(61));
        assert!(of(61) <= 3.0 && of(61) > 2.999 && of(62) > 3.0, "{}", of(61));
        assert!(plan.noise_multiplier > free.noise_multiplier);
        // The warm-up has its own clip; rate, multiplier and divisor are those of the rounds.
        let step = plan.of_warm_up().unwrap();
        assert_eq!(step, ExamplePlan { clip: 0.5, ..plan });
        assert_eq!((plan.steps_of(0), plan.clip_of(0), plan.steps_of(1), plan.clip_of(1)), (1, 0.5, 10, 1.0));
        assert_eq!((free.of_warm_up(), free.steps_of(0)), (None, 10));

        // Noise for which just so many rounds fit leaves no room for a warm-up beside them.
        let schedule = Schedule { batch: 128, steps: 1, rounds: 100 };
        let rounds = |privacy: &Privacy| ExamplePlan::new(privacy, 2376, schedule).unwrap().rounds;
        assert_eq!(rounds(&paid(Some(1.1))), rounds(&promise(Some(1.1))) - 1);
        let spent = ExamplePlan::new(&paid(Some(0.2)), 2376, SCHEDULE).unwrap_err().to_string();
        assert!(spent.contains("first round"), "{spent}");
        // A plan of an older record has no warm-up.
        let mut written = serde_json::to_value(plan).unwrap();
        written.as_object_mut().unwrap().remove("warm_up_clip").unwrap();
        let read: ExamplePlan = serde_json::from_value(written).unwrap();
        assert_eq!(read, ExamplePlan { warm_up_clip: None, ..plan });
        assert!(!serde_json::to_string(&free).unwrap().contains("warm_up"));
    }

    #[test]
    fn promises_that_cannot_be_kept_are_refused() {
        let refusal =
            |privacy: &Privacy, examples| ExamplePlan::new(privacy, examples, SCHEDULE).unwrap_err().to_string();
        assert!(refusal(&promise(None), 200_000).contains("not below 1/200000"));
        assert!(refusal(&promise(Some(0.2)), 2376).contains("first round"));
        assert!(refusal(&promise(None), 0).contains("no training example"));
        assert!(refusal(&Privacy::None, 10).contains("no privacy"));
        assert!(refusal(&Privacy::new("client", TERMS).unwrap(), 10).contains("on its own"));
    }

    #[test]
    fn a_batch_of_everything_is_the_plain_gaussian_mechanism() {
        let plan = ExamplePlan::new(&promise(None), 50, SCHEDULE).unwrap();
        assert_eq!((plan.sampling_rate, plan.expected_batch), (1.0, 50.0));
    }
}
