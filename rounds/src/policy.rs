//! How a run decides: cohort, quorum, deadline, grace, over-selection and retries as one declared
//! value, and the one rule by which every collecting phase waits or goes on.

use rondo_proto::run_file::{Keep, Rounds, Weighting};
use serde::{Deserialize, Serialize};

use crate::key::Millis;

/// Milliseconds of silence after which a client is not drawn into a cohort.
const LOST_AFTER_MS: Millis = 60_000;

/// The round policy of a run, as its run file declares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Training rounds.
    pub rounds: u32,
    /// Updates that make a round complete.
    pub cohort: u32,
    /// Fewest updates that make a round valid.
    pub quorum: u32,
    /// Clients drawn beyond the cohort; the first `cohort` updates count.
    pub over_select: u32,
    /// Time a phase may take, in milliseconds.
    pub deadline_ms: Millis,
    /// Time for the others once quorum is reached, in milliseconds.
    pub grace_ms: Millis,
    /// Evaluate after every so many rounds, and after the last; 0 = never.
    pub eval_every: u32,
    /// How updates weigh.
    pub weighting: Weighting,
    /// Failed attempts at one round before the run ends as failed.
    pub max_attempts: u32,
    /// Silence after which a client is not drawn, in milliseconds.
    pub lost_after_ms: Millis,
    /// Which round's adapter the finished run hands out.
    #[serde(default)]
    pub keep: Keep,
    /// A round whose held-out loss exceeds the best one so far by more than this share is rolled
    /// back; absent = no round is.
    #[serde(default)]
    pub rollback: Option<f64>,
}

impl Policy {
    /// The policy of a run file.
    ///
    /// With `[privacy]`, `is_private`, all updates weigh alike, since example counts stay with the
    /// data owners.
    pub fn of(rounds: &Rounds, is_private: bool) -> Self {
        let millis = |seconds: u64| Millis::try_from(seconds.saturating_mul(1000)).unwrap_or(Millis::MAX / 4);
        Self {
            rounds: rounds.count,
            cohort: rounds.cohort,
            quorum: rounds.quorum,
            over_select: rounds.over_select,
            deadline_ms: millis(rounds.deadline_s).min(Millis::MAX / 4),
            grace_ms: millis(rounds.grace_s).min(Millis::MAX / 4),
            eval_every: rounds.eval_every,
            weighting: rounds.weighting.unwrap_or(if is_private { Weighting::Uniform } else { Weighting::Examples }),
            max_attempts: rounds.max_attempts,
            lost_after_ms: LOST_AFTER_MS,
            keep: rounds.keep,
            rollback: rounds.rollback,
        }
    }

    /// Clients drawn for a round.
    pub fn seats(&self) -> usize {
        self.cohort as usize + self.over_select as usize
    }

    /// Whether the adapter of this training round is measured.
    pub fn evaluates(&self, round: u32) -> bool {
        self.eval_every > 0 && (round.is_multiple_of(self.eval_every) || round == self.rounds)
    }

    /// Whether a measured round exceeds the best before it by more than the policy allows.
    pub fn rolls_back(&self, held_out: HeldOut, best: Option<f64>) -> bool {
        let Some(share) = self.rollback else { return false };
        match held_out {
            HeldOut::None => false,
            HeldOut::Diverged => true,
            HeldOut::Loss(loss) => best.is_some_and(|best| loss > best * (1.0 + share)),
        }
    }

    /// Shares of updates with these example counts, in the same order; they sum to 1.
    pub fn weights(&self, examples: &[u64]) -> Vec<f64> {
        let shares: Vec<f64> = match self.weighting {
            Weighting::Examples => examples.iter().map(|&count| count as f64).collect(),
            Weighting::Uniform => vec![1.0; examples.len()],
        };
        let total: f64 = shares.iter().sum();
        shares.into_iter().map(|share| share / total).collect()
    }
}

/// What the measurements of a round came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeldOut {
    /// Nothing was measured.
    None,
    /// Somebody measured a loss that is no finite number.
    Diverged,
    /// The mean loss.
    Loss(f64),
}

/// How far a collection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Answers that came.
    pub done: usize,
    /// Answers that may still come.
    pub open: usize,
    /// Answers that make it complete.
    pub wanted: usize,
    /// Fewest answers that make it valid.
    pub quorum: usize,
}

/// What a [`Window`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Wait for more.
    Wait,
    /// Go on with what there is.
    Proceed(Cause),
    /// Quorum cannot be reached any more.
    Fail(Cause),
}

/// Why a [`Window`] decided so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// All that was wanted is there.
    Complete,
    /// Nobody is left to wait for.
    NobodyLeft,
    /// The grace time after quorum is over.
    Grace,
    /// The deadline is over.
    Deadline,
}

/// The time a collecting phase has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When it ends in any case, Unix time in milliseconds.
    pub deadline: Millis,
    /// When the grace time after quorum ends; absent before quorum.
    pub grace: Option<Millis>,
}

impl Window {
    /// A window that opens now.
    pub fn open(now: Millis, policy: &Policy) -> Self {
        Self { deadline: now.saturating_add(policy.deadline_ms), grace: None }
    }

    /// Decides, and starts or stops the grace time with quorum.
    pub fn decide(&mut self, now: Millis, policy: &Policy, progress: Progress) -> Decision {
        let Progress { done, open, wanted, quorum } = progress;
        // A clock that was set back must not stretch the window beyond its full length.
        self.deadline = self.deadline.min(now.saturating_add(policy.deadline_ms));
        self.grace = if done >= quorum {
            let full = now.saturating_add(policy.grace_ms);
            Some(self.grace.map_or(full, |grace| grace.min(full)))
        } else {
            None
        };
        if done >= wanted {
            return Decision::Proceed(Cause::Complete);
        }
        if done + open < quorum {
            return Decision::Fail(Cause::NobodyLeft);
        }
        if open == 0 {
            return Decision::Proceed(Cause::NobodyLeft);
        }
        if now >= self.deadline {
            return if done >= quorum { Decision::Proceed(Cause::Deadline) } else { Decision::Fail(Cause::Deadline) };
        }
        if self.grace.is_some_and(|grace| now >= grace) {
            return Decision::Proceed(Cause::Grace);
        }
        Decision::Wait
    }

    /// Decides where everybody who was drawn counts, however few they are: what one client sends
    /// must not decide whether another is waited for, or whether the round is held at all.
    pub fn decide_drawn(&mut self, now: Millis, policy: &Policy, open: usize) -> Decision {
        self.deadline = self.deadline.min(now.saturating_add(policy.deadline_ms));
        match open {
            0 => Decision::Proceed(Cause::Complete),
            _ if now >= self.deadline => Decision::Proceed(Cause::Deadline),
            _ => Decision::Wait,
        }
    }

    /// When it must decide again if nothing else happens.
    pub fn next_wake(&self) -> Millis {
        self.grace.map_or(self.deadline, |grace| grace.min(self.deadline))
    }

    /// Moves it on by the duration of a pause.
    pub fn shift(&mut self, pause: Millis) {
        self.deadline = self.deadline.saturating_add(pause);
        self.grace = self.grace.map(|grace| grace.saturating_add(pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            rounds: 5,
            cohort: 4,
            quorum: 2,
            over_select: 1,
            deadline_ms: 1000,
            grace_ms: 100,
            eval_every: 2,
            weighting: Weighting::Examples,
            max_attempts: 3,
            lost_after_ms: LOST_AFTER_MS,
            keep: Keep::Last,
            rollback: None,
        }
    }

    fn at(done: usize, open: usize) -> Progress {
        Progress { done, open, wanted: 4, quorum: 2 }
    }

    #[test]
    fn a_full_cohort_goes_at_once() {
        let mut window = Window::open(0, &policy());
        assert_eq!(window.decide(1, &policy(), at(4, 1)), Decision::Proceed(Cause::Complete));
    }

    #[test]
    fn quorum_starts_the_grace_time() {
        let mut window = Window::open(0, &policy());
        assert_eq!(window.decide(10, &policy(), at(1, 4)), Decision::Wait);
        assert_eq!(window.next_wake(), 1000);
        assert_eq!(window.decide(20, &policy(), at(2, 3)), Decision::Wait);
        assert_eq!(window.next_wake(), 120);
        assert_eq!(window.decide(60, &policy(), at(3, 2)), Decision::Wait);
        assert_eq!(window.decide(120, &policy(), at(3, 2)), Decision::Proceed(Cause::Grace));
    }

    #[test]
    fn losing_quorum_stops_the_grace_time() {
        let mut window = Window::open(0, &policy());
        window.decide(20, &policy(), at(2, 3));
        assert_eq!(window.decide(120, &policy(), at(1, 3)), Decision::Wait);
        assert_eq!(window.next_wake(), 1000);
    }

    #[test]
    fn the_deadline_needs_quorum() {
        let mut window = Window::open(0, &policy());
        assert_eq!(window.decide(1000, &policy(), at(1, 3)), Decision::Fail(Cause::Deadline));
        assert_eq!(window.decide(1000, &policy(), at(2, 3)), Decision::Proceed(Cause::Deadline));
    }

    #[test]
    fn too_few_left_fails_without_waiting() {
        let mut window = Window::open(0, &policy());
        assert_eq!(window.decide(1, &policy(), at(1, 0)), Decision::Fail(Cause::NobodyLeft));
        assert_eq!(window.decide(1, &policy(), at(2, 0)), Decision::Proceed(Cause::NobodyLeft));
    }

    #[test]
    fn a_clock_set_back_does_not_stretch_the_window() {
        let mut window = Window::open(10_000, &policy());
        assert_eq!(window.decide(0, &policy(), at(0, 4)), Decision::Wait);
        assert_eq!(window.next_wake(), 1000);
    }

    #[test]
    fn only_what_is_worse_by_more_than_the_share_is_rolled_back() {
        let patient = Policy { rollback: Some(0.1), ..policy() };
        for (held_out, best, expected) in [
            (HeldOut::Loss(1.1), Some(1.0), false),
            (HeldOut::Loss(1.100_001), Some(1.0), true),
            (HeldOut::Loss(9.0), None, false),
            (HeldOut::Diverged, None, true),
            (HeldOut::Diverged, Some(1.0), true),
            (HeldOut::None, Some(1.0), false),
        ] {
            assert_eq!(patient.rolls_back(held_out, best), expected, "{held_out:?} {best:?}");
            assert!(!policy().rolls_back(held_out, best), "without rounds.rollback nothing is");
        }
    }

    #[test]
    fn weights_sum_to_one() {
        assert_eq!(policy().weights(&[1, 3]), vec![0.25, 0.75]);
        let uniform = Policy { weighting: Weighting::Uniform, ..policy() };
        assert_eq!(uniform.weights(&[1, 3]), vec![0.5, 0.5]);
    }

    #[test]
    fn the_last_round_is_always_evaluated() {
        let due: Vec<u32> = (1..=5).filter(|&round| policy().evaluates(round)).collect();
        assert_eq!(due, [2, 4, 5]);
        assert!(!Policy { eval_every: 0, ..policy() }.evaluates(5));
    }
}
