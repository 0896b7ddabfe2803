//! Ended: nothing moves any more.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Phase;
use crate::Millis;
use crate::desk::Desk;
use crate::state::{EvaluationState, PartState};

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
    /// Another round would break the promised epsilon: of too many of its clients or, per client, of the run itself. What
    /// is published stands.
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

/// Ends the run. Work in hand is dropped, its blobs too; the open round stays visible as it was.
pub(crate) fn end(desk: &mut Desk<'_>, outcome: Outcome) {
    let updates: Vec<_> = desk.run().update_blobs().collect();
    updates.into_iter().chain(desk.run().server_blobs()).for_each(|digest| desk.discard(digest));

    let reason = match &outcome {
        Outcome::Completed => "the run is complete".to_owned(),
        Outcome::Cancelled => "the run was cancelled".to_owned(),
        Outcome::BudgetSpent => "the run has spent its privacy budget".to_owned(),
        Outcome::Failed(why) => format!("the run failed: {why}"),
    };
    let at_work: Vec<_> = desk
        .run()
        .parts()
        .filter(|(_, part)| part.state.is_open() || part.evaluation.is_open())
        .map(|(client, _)| client.clone())
        .collect();
    for client in at_work {
        let Some(part) = desk.part(&client) else { continue };
        if part.state.is_open() {
            part.state = PartState::Dropped;
            part.reason.clone_from(&reason);
        }
        if part.evaluation.is_open() {
            part.evaluation = EvaluationState::Missed;
        }
    }

    let text = format!("the run has ended: {outcome}");
    let at = desk.now().max(desk.run().spec.created_at);
    let live = desk.live();
    live.paused_at = None;
    live.phase = Phase::Ended(Ended { at, outcome });
    desk.announce(None, text);
}
