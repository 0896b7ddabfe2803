//! Runs that promise privacy per client: the coordinator adds the noise, to the sum of clipped changes, and keeps the
//! books in the run's own records.
//!
//! A release is charged in a durable step before its noise is drawn ([`Input::Releasing`](crate::Input::Releasing)), and
//! never refunded: one that is made again after a crash has new noise and is charged again.

use std::fmt;

use rondo_dp::{ClientPlan, ClientPlanError};
use rondo_methods::{Instance, Job, Kind};
use rondo_proto::v1;
use serde::{Deserialize, Serialize};

use crate::desk::Desk;
use crate::effect::{Release, RoundKind};
use crate::input::WorkKey;
use crate::phases::{Outcome, Phase, ended, not_open};
use crate::rejection::Rejection;
use crate::state::Run;

/// 32 bytes of the operating system's randomness, by which a run's coins are tossed. Whoever knows it knows every cohort:
/// it stays in the run's records, and no client, operator or log is shown it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CohortKey([u8; 32]);

impl CohortKey {
    /// A key from fresh randomness. The engine has none of its own.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for CohortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CohortKey { .. }")
    }
}

/// How a run keeps a promise per client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Central {
    /// Noise, divisor and budget.
    pub plan: ClientPlan,
    /// Of cohorts that are drawn by coins.
    pub key: Option<CohortKey>,
}

/// What a run's releases have cost every client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Charged {
    /// Releases, those that were made again included.
    pub releases: u32,
    /// Round and attempt of the latest.
    pub latest: (u32, u32),
    /// What is held against the budget.
    pub epsilon: f64,
    /// The same by privacy loss distributions: tighter.
    pub epsilon_pld: f64,
    /// The enforced figure after one more release.
    pub next_epsilon: f64,
    /// The enforced figure towards whoever sees the cohorts.
    pub epsilon_seen: f64,
    /// What it clipped to.
    #[serde(default)]
    pub clip: f64,
    /// Head of the coordinator's ledger right after the latest was entered; empty until its result is there.
    #[serde(default)]
    pub ledger_head: String,
}

impl Run {
    /// The plan of the open round, if it releases anything: a warm-up of a private run reads no data.
    pub(crate) fn releases(&self) -> Option<&Central> {
        self.spec.central.as_ref().filter(|_| self.live.open.kind == RoundKind::Train)
    }

    /// What changes are clipped to in the open round, if it releases anything.
    pub(crate) fn clip(&self) -> Option<f64> {
        self.releases().map(|central| self.live.clip.unwrap_or(central.plan.clip))
    }

    /// The open round's release, to be ordered.
    pub(crate) fn release(&self) -> Option<Release> {
        let (plan, clip) = (self.releases()?.plan, self.clip()?);
        Some(Release { plan, clip, domain: self.spec.dataset.clone() })
    }

    /// The key and the rate of the open round's coins, if its cohort is drawn by coins.
    pub(crate) fn coins(&self) -> Option<(CohortKey, f64)> {
        self.releases().and_then(|central| Some((central.key?, central.plan.sampling_rate)))
    }

    /// Updates that make the open round complete: everybody whom the coins drew, or a cohort.
    pub(crate) fn wanted(&self) -> usize {
        if self.coins().is_some() { self.parts().count() } else { self.spec.policy.cohort as usize }
    }

    /// Whether no further release fits what was promised.
    pub(crate) fn has_released_all(&self) -> bool {
        let charged = self.live.charged.as_ref().map_or(0, |charged| charged.releases);
        self.releases().is_some_and(|central| charged >= central.plan.releases)
    }

    /// What the run has released, for its records.
    pub(crate) fn released(&self) -> Option<v1::PrivacyReport> {
        let (plan, charged) = (self.releases()?.plan, self.live.charged.as_ref()?);
        // Until the open round has released, what the run has cost is as of the round before, whose head is not this one's.
        let is_latest = charged.latest == (self.live.open.round, self.live.open.attempt);
        Some(v1::PrivacyReport {
            unit: "client".to_owned(),
            noise_multiplier: plan.noise_multiplier,
            sampling_rate: plan.sampling_rate,
            steps: 1,
            total_steps: charged.releases,
            delta: plan.delta,
            epsilon: charged.epsilon,
            epsilon_pld: charged.epsilon_pld,
            next_epsilon: charged.next_epsilon,
            ledger_head: if is_latest { charged.ledger_head.clone() } else { String::new() },
            clip: charged.clip,
        })
    }
}

/// What was promised and spent, behind the promise's own line.
pub(crate) fn statement(central: &Central, charged: Option<&Charged>) -> String {
    let ClientPlan { noise_multiplier, sampling_rate, divisor, .. } = central.plan;
    let mut text = format!(", noise multiplier {noise_multiplier:.4} on the sum over {divisor}");
    if central.key.is_some() {
        text += &format!(", Poisson-sampled cohorts at rate {sampling_rate}");
    }
    let Some(Charged { releases, epsilon, epsilon_pld, epsilon_seen, .. }) = charged else { return text };
    let plural = if *releases == 1 { "" } else { "s" };
    text += &format!("; spent {epsilon:.4} ({epsilon_pld:.4} by PLD) in {releases} release{plural}");
    if central.key.is_some() {
        text += &format!(", {epsilon_seen:.4} to whoever sees the cohorts");
    }
    text
}

/// What is to be expected of a run's noise. A mean of updates cannot rise above the clip.
pub(crate) fn prediction(plan: &ClientPlan, job: &Job) -> String {
    let tensors = job.upload_manifest(Kind::Train, Instance::in_round(1));
    let numbers: usize = tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let (noise, ratio) = (plan.noise_norm(numbers as u64), plan.signal_to_noise(numbers as u64));
    let mend = if ratio < 1.0 { ": use more clients, a smaller rank, or unit \"example\"" } else { "" };
    format!(
        "predicted noise norm {noise:.3} over {numbers} numbers, against updates of at most {} (signal-to-noise \
         {ratio:.3}){mend}",
        plan.clip
    )
}

/// Charges a release that is about to be made. False when the run has no budget for it: then it ends.
pub(crate) fn charge(desk: &mut Desk<'_>, work: &WorkKey) -> Result<bool, Rejection> {
    let run = desk.run();
    let release = run.release();
    let (Phase::Aggregating(_), Some(Release { plan, clip, .. }), true) =
        (&run.live.phase, release, desk.work() == *work)
    else {
        return Err(not_open(run, work));
    };
    if run.has_released_all() {
        ended::end(desk, Outcome::BudgetSpent);
        return Ok(false);
    }
    let before = run.live.charged.as_ref();
    let releases = before.map_or(0, |charged| charged.releases) + 1;
    let is_again = before.is_some_and(|charged| charged.latest == (work.round, work.attempt));
    let refused = ClientPlanError::from;
    let epsilon = plan.epsilon_after(releases).map_err(refused)?;
    let charged = Charged {
        releases,
        latest: (work.round, work.attempt),
        epsilon,
        // The tighter figure may be out of its grid's reach; then the other one stands for it.
        epsilon_pld: plan.epsilon_pld_after(releases).map_or(epsilon, |tighter| tighter.min(epsilon)),
        next_epsilon: plan.epsilon_after(releases.saturating_add(1)).map_err(refused)?,
        epsilon_seen: plan.epsilon_seen_after(releases).map_err(refused)?,
        clip,
        ledger_head: String::new(),
    };
    if is_again {
        desk.note(
            "the release of this round was interrupted: it is made again, with new noise, and charged again".into(),
        );
    }
    let Charged { epsilon, epsilon_pld, .. } = &charged;
    let text =
        format!("release {releases} is charged: epsilon {epsilon:.4} ({epsilon_pld:.4} by PLD) of {}", plan.epsilon);
    desk.live().charged = Some(charged);
    desk.announce(None, text);
    Ok(true)
}

/// Notes which head of the coordinator's ledger has the release that was made.
pub(crate) fn enter_head(desk: &mut Desk<'_>, head: String) {
    if let Some(charged) = &mut desk.live().charged {
        charged.ledger_head = head;
    }
}

/// Takes the clip of the next round. It was published under noise, and charged with the round's release.
pub(crate) fn move_clip(desk: &mut Desk<'_>, clip: f64) {
    let Some(before) = desk.run().clip() else { return };
    desk.live().clip = Some(clip);
    desk.note(format!("the clip moves from {before:.4} to {clip:.4}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", CohortKey::new([7; 32])), "CohortKey { .. }");
    }
}
