//! Publishing: the new adapter is out. Clients measure it when an evaluation is due; then the round's record closes.

use rondo_proto::{ClientId, Digest, RunId, v1};
use serde::{Deserialize, Serialize};

use super::ended::{self, Outcome};
use super::{Phase, Recruiting, collecting};
use crate::desk::Desk;
use crate::effect::RoundKind;
use crate::policy::{Progress, Verdict, Window};
use crate::rejection::Rejection;
use crate::state::{ClosedRound, EvaluationState, OpenRound, PartState, Publication, Run};
use crate::views;

/// The new adapter is out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Publishing {
    /// What was published.
    pub publication: Publication,
    /// Fingerprint of the set it was made from.
    pub plan: Digest,
    /// The time evaluations have; absent when none is due.
    pub window: Option<Window>,
}

/// Publishes and asks for evaluations if they are due.
pub(crate) fn begin(desk: &mut Desk<'_>, publication: Publication, plan: Digest) {
    let policy = desk.run().spec.policy.clone();
    let open = desk.run().live.open.clone();
    let is_due = open.kind == RoundKind::Train && policy.evaluates(open.round);
    let evaluators: Vec<ClientId> = desk
        .run()
        .parts()
        .filter(|(client, part)| is_due && part.state != PartState::Dropped && desk.is_active(client))
        .map(|(client, _)| client.clone())
        .collect();
    let error = publication.error.map(|error| format!(", aggregation error {error:.1e}")).unwrap_or_default();
    desk.announce(None, format!("round {} published{error}", open.round));

    for client in &evaluators {
        if let Some(part) = desk.part(client) {
            part.evaluation = EvaluationState::Due;
        }
    }
    let window = (!evaluators.is_empty()).then(|| Window::open(desk.now(), &policy));
    desk.live().phase = Phase::Publishing(Publishing { publication, plan, window });
}

/// Whether an evaluation of this round is wanted from the client, or came already. Changes nothing.
pub(crate) fn expects(id: &RunId, run: &Run, client: &ClientId, round: u32) -> Result<bool, Rejection> {
    let unexpected = || Rejection::NoEvaluation { client: client.clone(), run: id.clone(), round };
    if let Some(closed) = run.rounds.get(&round) {
        let mut participants = closed.record.participants.iter();
        let has_reported = participants.any(|part| part.client == client.as_str() && part.after.is_some());
        return if has_reported { Ok(false) } else { Err(unexpected()) };
    }
    if !matches!(run.live.phase, Phase::Publishing(_)) || run.live.open.round != round {
        return Err(unexpected());
    }
    let part = run.parts().find(|(id, _)| *id == client).map(|(_, part)| part).ok_or_else(unexpected)?;
    match part.evaluation {
        EvaluationState::Due | EvaluationState::Working => Ok(true),
        EvaluationState::Done => Ok(false),
        EvaluationState::None | EvaluationState::Missed => Err(unexpected()),
    }
}

/// Takes an evaluation that is wanted.
pub(crate) fn evaluated(desk: &mut Desk<'_>, client: &ClientId, evaluation: v1::Evaluation) {
    if !collecting::is_measured(&evaluation) {
        let text = format!("evaluation failed: loss {}, accuracy {}", evaluation.loss, evaluation.accuracy);
        return miss(desk, client, text);
    }
    let text = format!("accuracy {:.4}, loss {:.4}", evaluation.accuracy, evaluation.loss);
    if let Some(part) = desk.part(client) {
        part.evaluation = EvaluationState::Done;
        part.after = Some(evaluation);
    }
    desk.announce(Some(client), text);
}

/// Gives up on a client's evaluation.
pub(crate) fn miss(desk: &mut Desk<'_>, client: &ClientId, why: String) {
    if let Some(part) = desk.part(client) {
        part.evaluation = EvaluationState::Missed;
    }
    desk.note(format!("{client}: {why}"));
    desk.announce(Some(client), why);
}

/// Closes the round when all evaluations are in, or their time is over.
pub(crate) fn settle(desk: &mut Desk<'_>) -> bool {
    let Phase::Publishing(publishing) = &desk.run().live.phase else { return false };
    if let Some(window) = &publishing.window {
        let policy = &desk.run().spec.policy;
        let states: Vec<EvaluationState> = desk.run().parts().map(|(_, part)| part.evaluation).collect();
        let count = |state: fn(&EvaluationState) -> bool| states.iter().filter(|s| state(s)).count();
        let (done, open) = (count(|state| *state == EvaluationState::Done), count(|state| state.is_open()));
        let wanted = count(|state| *state != EvaluationState::None);
        // A round stands whether or not it was measured: whoever is left makes the quorum, and nothing can fail here.
        let quorum = (policy.quorum as usize).min(done + open);
        let mut judged = window.clone();
        if judged.judge(desk.now(), policy, Progress { done, open, wanted, quorum }) == Verdict::Wait {
            if judged != *window {
                let publishing = Publishing { window: Some(judged), ..publishing.clone() };
                desk.live().phase = Phase::Publishing(publishing);
            }
            return false;
        }
    }
    close(desk);
    advance(desk);
    true
}

/// Writes the round's record. The phase stays, for [`advance`] or an end.
pub(crate) fn close(desk: &mut Desk<'_>) {
    let Phase::Publishing(publishing) = &desk.run().live.phase else { return };
    let publication = publishing.publication.clone();
    let late: Vec<ClientId> =
        desk.run().parts().filter(|(_, part)| part.evaluation.is_open()).map(|(client, _)| client.clone()).collect();
    for client in late {
        miss(desk, &client, "no evaluation in time".to_owned());
    }
    forget_undelivered(desk);

    let round = desk.run().live.open.round;
    let mut record = views::open_record(desk.id, desk.run(), desk.presence);
    record.ended_at_ms = desk.now().max(record.started_at_ms);
    let text = closing_line(&record);
    desk.close_round(round, ClosedRound { record, publication });
    desk.announce(None, text);
}

/// Downloads that were assigned in this round and never began are not this round's: they are assigned anew.
fn forget_undelivered(desk: &mut Desk<'_>) {
    let round = desk.run().live.open.round;
    let idle: Vec<(ClientId, Digest, u64)> = desk
        .run()
        .members
        .iter()
        .flat_map(|(client, member)| member.fetches.iter().map(move |(digest, fetch)| (client, digest, fetch)))
        .filter(|(_, _, fetch)| fetch.round == round && !fetch.delivered)
        .map(|(client, digest, fetch)| (client.clone(), *digest, fetch.layout_bytes))
        .collect();
    for (client, digest, layout_bytes) in idle {
        let member = desk.member(&client);
        member.fetches.remove(&digest);
        if let Some(part) = &mut member.part {
            part.layout_bytes_down = part.layout_bytes_down.saturating_sub(layout_bytes);
        }
    }
}

fn closing_line(record: &v1::RoundRecord) -> String {
    let measured: Vec<&v1::Evaluation> = record.participants.iter().filter_map(|p| p.after.as_ref()).collect();
    let examples: f64 = measured.iter().map(|evaluation| evaluation.examples as f64).sum();
    if examples == 0.0 {
        return format!("round {} closed", record.round);
    }
    let hits: f64 = measured.iter().map(|evaluation| evaluation.accuracy * evaluation.examples as f64).sum();
    let accuracy = hits / examples;
    format!("round {} closed: accuracy {accuracy:.4} over {} clients", record.round, measured.len())
}

/// Opens the next round, or completes the run.
fn advance(desk: &mut Desk<'_>) {
    let members: Vec<ClientId> = desk
        .run()
        .members
        .iter()
        .filter(|(_, member)| member.part.is_some())
        .map(|(client, _)| client.clone())
        .collect();
    for client in members {
        desk.member(&client).part = None;
    }
    let open = &desk.run().live.open;
    let is_last = open.kind == RoundKind::Train && open.round >= desk.run().spec.policy.rounds;
    if is_last {
        return ended::end(desk, Outcome::Completed);
    }
    let round = open.round + 1;
    let live = desk.live();
    live.open = OpenRound { round, kind: RoundKind::Train, attempt: 1, started_at: None, notes: Vec::new() };
    live.phase = Phase::Recruiting(Recruiting::default());
}
