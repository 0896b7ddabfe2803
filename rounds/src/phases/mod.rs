//! The phases of a round, one file each.
//!
//! ```text
//! Recruiting -> WarmUp   -+
//!     ^    \              +-> Aggregating -> Publishing -> (next round) Recruiting
//!     |     -> Training  -+        |             |
//!     +---- next attempt <---------+             +-> Ended
//! ```
//! Each phase has a `settle`: it looks at the run and the time, and moves the run on if it can. An input only writes
//! down what happened; the settling afterwards decides. A paused run is not settled, so nothing is decided in it.

use std::collections::BTreeSet;

use rondo_proto::ClientId;
use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::desk::Desk;
use crate::input::WorkKey;
use crate::rejection::Rejection;
use crate::state::Run;

pub(crate) mod aggregating;
pub(crate) mod collecting;
pub(crate) mod ended;
pub(crate) mod measuring;
pub(crate) mod publishing;
pub(crate) mod recruiting;
pub(crate) mod training;
pub(crate) mod warm_up;

pub use aggregating::Aggregating;
pub use ended::{Ended, Outcome};
pub use measuring::Measuring;
pub use publishing::Publishing;
pub use recruiting::Recruiting;
pub use training::Training;
pub use warm_up::WarmUp;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Waits for enough clients to draw a cohort from.
    Recruiting(Recruiting),
    /// Collects the warm-up statistic.
    WarmUp(WarmUp),
    /// Collects updates.
    Training(Training),
    /// Waits for the executor.
    Aggregating(Aggregating),
    /// The new adapter is out; collects evaluations if they are due.
    Publishing(Publishing),
    /// Over.
    Ended(Ended),
}

impl Phase {
    /// As operators see it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Recruiting(_) => "recruiting",
            Self::WarmUp(_) => "warm-up",
            Self::Training(_) => "training",
            Self::Aggregating(_) => "aggregating",
            Self::Publishing(_) => "publishing",
            Self::Ended(_) => "ended",
        }
    }

    /// The present deadline, if there is one.
    pub fn deadline(&self) -> Option<Millis> {
        match self {
            Self::WarmUp(phase) => Some(phase.window.deadline),
            Self::Training(phase) => Some(phase.window.deadline),
            Self::Publishing(phase) => phase.window.as_ref().map(|window| window.deadline),
            Self::Recruiting(_) | Self::Aggregating(_) | Self::Ended(_) => None,
        }
    }

    /// When the phase must be settled again if nothing else happens.
    pub(crate) fn next_wake(&self, grace_ms: Millis) -> Option<Millis> {
        match self {
            Self::Recruiting(phase) => phase.next_wake(grace_ms),
            Self::WarmUp(phase) => Some(phase.window.next_wake()),
            Self::Training(phase) => Some(phase.window.next_wake()),
            Self::Publishing(phase) => phase.window.as_ref().map(|window| window.next_wake()),
            Self::Aggregating(_) | Self::Ended(_) => None,
        }
    }

    /// Moves the clock of the phase on by the time a pause took.
    pub(crate) fn shift(&mut self, pause: Millis) {
        match self {
            Self::Recruiting(phase) => {
                phase.quorum_since = phase.quorum_since.map(|since| since.saturating_add(pause));
                phase.rest_until = phase.rest_until.map(|until| until.saturating_add(pause));
            }
            Self::WarmUp(phase) => phase.window.shift(pause),
            Self::Training(phase) => phase.window.shift(pause),
            Self::Publishing(phase) => {
                if let Some(window) = &mut phase.window {
                    window.shift(pause);
                }
            }
            Self::Aggregating(_) | Self::Ended(_) => {}
        }
    }
}

/// Moves the run on by one decision, if there is one to make now. `engaged` are clients that are at work for other runs.
pub(crate) fn settle(desk: &mut Desk<'_>, engaged: &BTreeSet<ClientId>) -> bool {
    if desk.run().live.paused_at.is_some() {
        return false;
    }
    match &desk.run().live.phase {
        Phase::Recruiting(_) => recruiting::settle(desk, engaged),
        Phase::WarmUp(_) | Phase::Training(_) => collecting::settle(desk),
        Phase::Publishing(_) => publishing::settle(desk),
        Phase::Aggregating(_) | Phase::Ended(_) => false,
    }
}

/// The rejection of something about a round or attempt that is not open.
pub(crate) fn not_open(run: &Run, work: &WorkKey) -> Rejection {
    Rejection::WrongRound {
        run: work.run.clone(),
        round: run.live.open.round,
        attempt: run.live.open.attempt,
        phase: run.live.phase.name(),
        got_round: work.round,
        got_attempt: work.attempt,
    }
}
