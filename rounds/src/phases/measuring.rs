//! Measuring at one named client. It need not train, nor have answered an invitation: its own policy judges the
//! assignment, and a failure report is its way to decline.

use rondo_proto::{ClientId, v1};
use serde::{Deserialize, Serialize};

use super::Phase;
use crate::desk::Desk;
use crate::state::{Client, EvaluationState, Evaluator, Run, Spec, Standing};

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
    /// The same by the layout's formula.
    pub layout_bytes_down: u64,
}

impl Measuring {
    /// Asks the client, unless it is plain that it cannot.
    pub(crate) fn ask(desk: &mut Desk<'_>, evaluator: &Evaluator) -> Self {
        let Evaluator { client, dataset } = evaluator.clone();
        let standing = desk.clients.get(&client).map(|client| client.standing);
        let reason = match standing {
            Some(Standing::Active) => String::new(),
            Some(standing) => format!("it is {}", standing.as_str()),
            None => "it is not enrolled".to_owned(),
        };
        let state = if reason.is_empty() { EvaluationState::Due } else { EvaluationState::Missed };
        if state == EvaluationState::Missed {
            desk.note(format!("{client}: no evaluation: {reason}"));
            desk.announce(Some(&client), format!("no evaluation: {reason}"));
        }
        Self { client, dataset, state, reason, after: None, bytes_down: 0, layout_bytes_down: 0 }
    }
}

/// Whether a client has what the measurement needs.
pub(crate) fn can_measure(client: &Client, spec: &Spec, evaluator: &Evaluator) -> bool {
    client.datasets.contains(&evaluator.dataset) && client.bases.contains(&spec.base.digest)
}

/// Why an evaluation that is still open when its time is over did not come.
pub(crate) fn why_late(desk: &Desk<'_>, client: &ClientId) -> String {
    let late = "no evaluation in time".to_owned();
    let spec = &desk.run().spec;
    let (Some(evaluator), Some(record)) = (&spec.evaluator, desk.clients.get(client)) else { return late };
    if evaluator.client != *client || can_measure(record, spec, evaluator) {
        return late;
    }
    let base = &spec.base;
    format!("{late}: it needs data set {:?} and base model {} ({})", evaluator.dataset, base.name, base.digest)
}

impl Run {
    /// The measurement at one client, while it is under way.
    pub(crate) fn measuring(&self) -> Option<&Measuring> {
        match &self.live.phase {
            Phase::Publishing(publishing) => publishing.measuring.as_deref(),
            _ => None,
        }
    }

    /// How far a client is with measuring the adapter that was just published.
    pub fn evaluation_of(&self, client: &ClientId) -> EvaluationState {
        match (&self.live.phase, self.measuring()) {
            (Phase::Publishing(_), Some(measuring)) if measuring.client == *client => measuring.state,
            (Phase::Publishing(_), None) => {
                self.parts().find(|(id, _)| *id == client).map_or(EvaluationState::None, |(_, part)| part.evaluation)
            }
            _ => EvaluationState::None,
        }
    }
}
