//! Runs with privacy per client: the coordinator adds the noise, to the sum of clipped changes, and
//! keeps the account in the run's own records.
//!
//! A release is charged in a durable step before its noise is drawn
//! ([`Input::Releasing`](crate::Input::Releasing)), and never refunded: one that is made again
//! after a crash has new noise and is charged again.

use rondo_dp::ClientPlan;
use rondo_proto::v1;
use serde::{Deserialize, Serialize};

use crate::effect::Release;
use crate::key::{CohortKey, RoundKind};
use crate::state::Run;

/// How a run keeps a guarantee per client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Central {
    /// Noise, divisor, clip and budget.
    pub plan: ClientPlan,
    /// The secret key of Poisson-sampled cohorts; absent where cohorts have a fixed size.
    pub key: Option<CohortKey>,
}

/// What a run's releases have cost every client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Charged {
    /// Releases so far, with those that were made again.
    pub releases: u32,
    /// Round and attempt of the latest release.
    pub latest: (u32, u32),
    /// Epsilon by RDP, which is held against the budget.
    pub epsilon: f64,
    /// Epsilon by privacy loss distributions: tighter, and only reported.
    pub epsilon_pld: f64,
    /// Epsilon by RDP after one more release.
    pub next_epsilon: f64,
    /// Epsilon by RDP towards whoever sees the cohorts.
    pub epsilon_seen: f64,
    /// The L2 clip norm of the latest release.
    #[serde(default)]
    pub clip: f64,
    /// Head of the coordinator's ledger right after the latest was entered; empty until its result
    /// is there.
    #[serde(default)]
    pub ledger_head: String,
}

impl Run {
    /// The plan of the open round, if it releases anything: a warm-up of a private run reads no
    /// data.
    pub(crate) fn active_central(&self) -> Option<&Central> {
        self.spec.central.as_ref().filter(|_| self.live.open.kind == RoundKind::Train)
    }

    /// What changes are clipped to in the open round, if it releases anything.
    pub(crate) fn clip(&self) -> Option<f64> {
        self.active_central().map(|central| self.live.clip.unwrap_or(central.plan.clip))
    }

    /// The open round's release, for its plan.
    pub(crate) fn release(&self) -> Option<Release> {
        let plan = self.active_central()?.plan;
        let clip = self.clip()?;
        Some(Release { plan, clip, domain: self.spec.dataset.clone() })
    }

    /// The key and the rate of the open round's Poisson sampling, if its cohort is drawn so.
    pub(crate) fn poisson_sampling(&self) -> Option<(CohortKey, f64)> {
        self.active_central().and_then(|central| Some((central.key?, central.plan.sampling_rate)))
    }

    /// Updates that make the open round complete: everybody whom Poisson sampling drew, or a cohort.
    pub(crate) fn wanted(&self) -> usize {
        if self.poisson_sampling().is_some() { self.participations().count() } else { self.spec.policy.cohort as usize }
    }

    /// Whether no further release fits the budget.
    pub(crate) fn has_released_all(&self) -> bool {
        let charged = self.live.charged.as_ref().map_or(0, |charged| charged.releases);
        self.active_central().is_some_and(|central| charged >= central.plan.releases)
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
