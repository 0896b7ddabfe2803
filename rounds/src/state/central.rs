//! Runs with privacy per client: the coordinator adds the noise, to the sum of clipped changes, and
//! keeps the account in the run's own records.
//!
//! A release is charged in a durable step before its noise is drawn
//! ([`Input::Releasing`](crate::Input::Releasing)), and never refunded: one that is made again
//! after a crash has new noise and is charged again.

use rondo_dp::ClientPlan;
use serde::{Deserialize, Serialize};

use crate::key::CohortKey;

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
