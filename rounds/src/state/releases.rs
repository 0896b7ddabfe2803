//! What the open round of a run with privacy per client releases, and what the run has released.

use rondo_proto::v1;

use crate::effect::Release;
use crate::key::{CohortKey, RoundKind};
use crate::state::Run;
use crate::state::central::Central;

impl Run {
    /// The plan of the open round, if it releases anything: a warm-up that is not paid for reads no
    /// data.
    pub(crate) fn active_central(&self) -> Option<&Central> {
        let is_training = self.live.open.kind == RoundKind::Train;
        self.spec.central.as_ref().filter(|central| is_training || central.plan.warm_up_clip.is_some())
    }

    /// What changes are clipped to in the open round, if it releases anything.
    pub(crate) fn clip(&self) -> Option<f64> {
        let plan = self.active_central()?.plan;
        match self.live.open.kind {
            RoundKind::WarmUp => plan.warm_up_clip,
            RoundKind::Train => Some(self.live.clip.unwrap_or(plan.clip)),
        }
    }

    /// The open round's release, for its plan.
    pub(crate) fn release(&self) -> Option<Release> {
        let plan = self.active_central()?.plan;
        let plan = match self.live.open.kind {
            RoundKind::WarmUp => plan.of_warm_up()?,
            RoundKind::Train => plan,
        };
        let clip = self.clip()?;
        Some(Release { plan, clip, domain: self.spec.dataset.clone() })
    }

    /// The key and the rate of the open round's Poisson sampling, if its cohort is drawn so.
    pub(crate) fn poisson_sampling(&self) -> Option<(CohortKey, f64)> {
        self.active_central().and_then(|central| Some((central.key?, central.plan.sampling_rate)))
    }

    /// Updates that make the open round complete: everybody whom Poisson sampling drew, or a
    /// cohort.
    pub(crate) fn wanted(&self) -> usize {
        if self.poisson_sampling().is_some() { self.participations().count() } else { self.spec.policy.cohort as usize }
    }

    /// Whether no further release fits the budget.
    pub(crate) fn has_released_all(&self) -> bool {
        let charged = self.live.charged.as_ref().map_or(0, |charged| charged.releases);
        self.active_central().is_some_and(|central| charged >= central.plan.releases)
    }

    /// Whether round `round` releases something that was made of the clients' data: every training
    /// round does, and a warm-up that is paid for.
    pub(crate) fn is_private_round(&self, round: u32) -> bool {
        !self.spec.privacy.is_none() && (round > 0 || self.spec.privacy.warm_up_clip().is_some())
    }

    /// What the run has released, for its records.
    pub(crate) fn released(&self) -> Option<v1::PrivacyReport> {
        let plan = self.active_central()?.plan;
        let charged = self.live.charged.as_ref()?;
        // Until the open round has released, what the run has cost is as of the round before, whose
        // head is not this one's.
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
