//! Where a run is: one value per phase of a round, with the clock of the phase.

use std::fmt;

use rondo_proto::{ClientId, Digest, v1};
use serde::{Deserialize, Serialize};

use crate::key::Millis;
use crate::policy::Window;
use crate::state::participation::EvaluationState;
use crate::state::publication::Publication;

/// The phase of a run.
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

    /// What it asks clients to do, if anything.
    pub(crate) fn work_kind(&self) -> Option<v1::WorkKind> {
        match self {
            Self::WarmUp(_) => Some(v1::WorkKind::WarmUp),
            Self::Training(_) => Some(v1::WorkKind::Train),
            Self::Publishing(_) => Some(v1::WorkKind::Evaluate),
            Self::Recruiting(_) | Self::Aggregating(_) | Self::Ended(_) => None,
        }
    }

    /// The present deadline, Unix time in milliseconds, if there is one.
    pub fn deadline(&self) -> Option<Millis> {
        match self {
            Self::WarmUp(phase) => Some(phase.window.deadline),
            Self::Training(phase) => Some(phase.window.deadline),
            Self::Publishing(phase) => phase.window.as_ref().map(|window| window.deadline),
            Self::Recruiting(_) | Self::Aggregating(_) | Self::Ended(_) => None,
        }
    }

    /// When the phase must be advanced again if nothing else happens.
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

/// Waits for enough clients to draw a cohort from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recruiting {
    /// Since when there have been enough for a quorum; the first round gives the others their grace
    /// time from then.
    pub quorum_since: Option<Millis>,
    /// How many clients were there when the run last said that it waits for more.
    pub said: Option<u32>,
    /// After a failed attempt: until when those who failed in it are not drawn again.
    #[serde(default)]
    pub rest_until: Option<Millis>,
}

/// Milliseconds for which those who failed are not drawn before the second attempt. Doubles with
/// each attempt.
const REST_MS: Millis = 5_000;
/// The longest rest, in milliseconds.
pub(crate) const LONGEST_REST_MS: Millis = 60_000;

impl Recruiting {
    /// Recruits for an attempt that follows a failed one. What made a client fail is often still so
    /// a moment later, and the attempts of a run are few.
    pub(crate) fn again(now: Millis, attempt: u32) -> Self {
        let rest = REST_MS << attempt.saturating_sub(2).min(8);
        Self { rest_until: Some(now.saturating_add(rest.min(LONGEST_REST_MS))), ..Self::default() }
    }

    /// When it must be advanced again if nothing else happens.
    pub(crate) fn next_wake(&self, grace_ms: Millis) -> Option<Millis> {
        let grace = self.quorum_since.map(|since| since.saturating_add(grace_ms));
        [grace, self.rest_until].into_iter().flatten().min()
    }
}

/// Collects the warm-up statistic. `phases::collecting` acts on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmUp {
    /// The time it has.
    pub window: Window,
}

/// Collects updates. `phases::collecting` acts on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Training {
    /// The time it has.
    pub window: Window,
}

/// Waits for the executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregating {
    /// Fingerprint of the set that is being aggregated: who, what, how much.
    pub plan: Digest,
}

/// The new adapter is out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Publishing {
    /// What was published.
    pub publication: Publication,
    /// Fingerprint of the set it was made from.
    pub plan: Digest,
    /// The time evaluations have; absent when none is due.
    pub window: Option<Window>,
    /// The measurement at one client, in a run that measures there.
    #[serde(default)]
    pub measuring: Option<Box<Measuring>>,
}

/// How far the named client is with measuring the published adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measuring {
    /// The client.
    pub client: ClientId,
    /// Its data set.
    pub dataset: String,
    /// How far it is.
    pub state: EvaluationState,
    /// Why there is no result.
    pub reason: String,
    /// The result.
    pub after: Option<v1::Evaluation>,
    /// Bytes of its downloads for this.
    pub bytes_down: u64,
    /// Bytes of its downloads by the layout's formula.
    pub layout_bytes_down: u64,
}

/// Over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Since when.
    pub at: Millis,
    /// How.
    pub outcome: Outcome,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All rounds were held.
    Completed,
    /// An operator ended it.
    Cancelled,
    /// Another round would exceed the epsilon: of too many of its clients or, per client, of the
    /// run itself. What is published stays published.
    BudgetSpent,
    /// It could not go on.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::BudgetSpent => f.write_str("privacy budget spent"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}
