//! Publishing: the new adapter is out. Clients measure it when an evaluation is due; then the round's record closes.

use std::collections::BTreeSet;

use rondo_proto::{ClientId, Digest, RunId, v1};
use serde::{Deserialize, Serialize};

use super::ended::{self, Outcome};
use super::measuring::why_late;
use super::{Measuring, Phase, Recruiting, collecting};
use crate::desk::Desk;
use crate::effect::RoundKind;
use crate::policy::{HeldOut, Progress, Verdict, Window};
use crate::rejection::Rejection;
use crate::state::{ClosedRound, EvaluationState, Fetch, OpenRound, PartState, Publication, Run};
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
    /// The measurement at one client, in a run that measures there.
    #[serde(default)]
    pub measuring: Option<Box<Measuring>>,
}

/// Publishes and asks for evaluations if they are due.
pub(crate) fn begin(desk: &mut Desk<'_>, publication: Publication, plan: Digest) {
    let policy = desk.run().spec.policy.clone();
    let open = desk.run().live.open.clone();
    let is_due = open.kind == RoundKind::Train && policy.evaluates(open.round);
    let evaluator = desk.run().spec.evaluator.clone();
    let everybody = is_due && evaluator.is_none();
    let evaluators: Vec<ClientId> = desk
        .run()
        .parts()
        .filter(|(client, part)| everybody && part.state != PartState::Dropped && desk.is_active(client))
        .map(|(client, _)| client.clone())
        .collect();
    let error = publication.error.map(|error| format!(", aggregation error {error:.1e}")).unwrap_or_default();
    desk.announce(None, format!("round {} published{error}", open.round));

    for client in &evaluators {
        if let Some(part) = desk.part(client) {
            part.evaluation = EvaluationState::Due;
        }
    }
    let measuring = evaluator.filter(|_| is_due).map(|evaluator| Box::new(Measuring::ask(desk, &evaluator)));
    let is_asked = measuring.as_ref().is_some_and(|measuring| measuring.state.is_open());
    let window = (is_asked || !evaluators.is_empty()).then(|| Window::open(desk.now(), &policy));
    desk.live().phase = Phase::Publishing(Publishing { publication, plan, window, measuring });
}

/// Whether an evaluation of this round is wanted from the client, or came already. Changes nothing.
pub(crate) fn expects(id: &RunId, run: &Run, client: &ClientId, round: u32) -> Result<bool, Rejection> {
    let unexpected = || Rejection::NoEvaluation { client: client.clone(), run: id.clone(), round };
    if let Some(closed) = run.rounds.get(&round) {
        let measured = closed.record.measurement.iter().map(|measured| (&measured.client, &measured.after));
        let mut measured = closed.record.participants.iter().map(|part| (&part.client, &part.after)).chain(measured);
        let has_reported = measured.any(|(name, after)| name == client.as_str() && after.is_some());
        return if has_reported { Ok(false) } else { Err(unexpected()) };
    }
    if !matches!(run.live.phase, Phase::Publishing(_)) || run.live.open.round != round {
        return Err(unexpected());
    }
    match run.evaluation_of(client) {
        EvaluationState::Due | EvaluationState::Working => Ok(true),
        EvaluationState::Done => Ok(false),
        EvaluationState::None | EvaluationState::Missed => Err(unexpected()),
    }
}

/// Takes an evaluation that is wanted.
pub(crate) fn evaluated(desk: &mut Desk<'_>, client: &ClientId, evaluation: v1::Evaluation) {
    if !collecting::is_measured(&evaluation) {
        let text = format!("evaluation failed: loss {}, accuracy {}", evaluation.loss, evaluation.accuracy);
        if !evaluation.loss.is_finite() {
            desk.live().open.diverged = true;
        }
        return miss(desk, client, text);
    }
    let text = format!("accuracy {:.4}, loss {:.4}", evaluation.accuracy, evaluation.loss);
    if let Some(measuring) = desk.measuring() {
        measuring.state = EvaluationState::Done;
        measuring.after = Some(evaluation);
    } else if let Some(part) = desk.part(client) {
        part.evaluation = EvaluationState::Done;
        part.after = Some(evaluation);
    }
    desk.announce(Some(client), text);
}

/// Gives up on a client's evaluation.
pub(crate) fn miss(desk: &mut Desk<'_>, client: &ClientId, why: String) {
    if let Some(measuring) = desk.measuring() {
        measuring.state = EvaluationState::Missed;
        measuring.reason.clone_from(&why);
    } else if let Some(part) = desk.part(client) {
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
        let states: Vec<EvaluationState> = match &publishing.measuring {
            Some(measuring) => vec![measuring.state],
            None => desk.run().parts().map(|(_, part)| part.evaluation).collect(),
        };
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
    let measures = publishing.measuring.iter().map(|measuring| &measuring.client);
    let asked = desk.run().parts().map(|(client, _)| client).chain(measures);
    let late: BTreeSet<ClientId> = asked.filter(|client| desk.run().evaluation_of(client).is_open()).cloned().collect();
    for client in late {
        let why = why_late(desk, &client);
        miss(desk, &client, why);
    }
    forget_undelivered(desk);
    let servers = desk.run().server_blobs();

    let round = desk.run().live.open.round;
    let mut record = views::open_record(desk.id, desk.run(), desk.presence);
    record.ended_at_ms = desk.now().max(record.started_at_ms);
    judge(desk.run(), &mut record);
    let text = closing_line(&record);
    desk.close_round(round, ClosedRound { record, publication });
    discard_servers(desk, servers);
    desk.announce_close(text);
}

/// Compares the round with the best before it, and takes it back when it is so much worse as the run declares.
fn judge(run: &Run, record: &mut v1::RoundRecord) {
    let (held_out, best) = (run.held_out(), run.best());
    record.best_round = best.map(|(round, _)| round);
    if let HeldOut::Loss(loss) = held_out {
        record.held_out_loss = Some(loss);
        if best.is_none_or(|(_, best)| loss < best) {
            record.best_round = Some(record.round);
        }
    }
    if !run.spec.policy.takes_back(held_out, best.map(|(_, loss)| loss)) {
        return;
    }
    let to = best.map_or(0, |(round, _)| round);
    record.rolled_back_to = Some(to);
    let (place, found) = (
        rolled_back_place(to),
        match held_out {
            HeldOut::Loss(loss) => format!("its held-out loss is {loss:.4}"),
            HeldOut::Diverged | HeldOut::None => "its held-out loss is no finite number".to_owned(),
        },
    );
    let limit = best
        .zip(run.spec.policy.rollback)
        .map(|((_, best), share)| format!(", at most {best:.4} and {} % is allowed", share * 100.0));
    record.notes.push(format!("rolled back to {place}: {found}{}", limit.unwrap_or_default()));
}

fn rolled_back_place(round: u32) -> String {
    if round == 0 { "the start".to_owned() } else { format!("round {round}") }
}

/// Lets go of states of the server optimiser that were needed and are no more.
pub(crate) fn discard_servers(desk: &mut Desk<'_>, before: BTreeSet<Digest>) {
    let needed = desk.run().server_blobs();
    before.difference(&needed).for_each(|digest| desk.discard(*digest));
}

/// Downloads that were assigned in this round and never began are not this round's: they are assigned anew.
fn forget_undelivered(desk: &mut Desk<'_>) {
    let round = desk.run().live.open.round;
    let idle: Vec<(ClientId, Digest, Fetch)> = desk
        .run()
        .members
        .iter()
        .flat_map(|(client, member)| member.fetches.iter().map(move |(digest, fetch)| (client, digest, fetch)))
        .filter(|(_, _, fetch)| fetch.round == round && !fetch.delivered)
        .map(|(client, digest, fetch)| (client.clone(), *digest, fetch.clone()))
        .collect();
    for (client, digest, Fetch { layout_bytes, measuring, .. }) in idle {
        let member = desk.member(&client);
        member.fetches.remove(&digest);
        if measuring {
            if let Some(measuring) = desk.measuring() {
                measuring.layout_bytes_down = measuring.layout_bytes_down.saturating_sub(layout_bytes);
            }
        } else if let Some(part) = &mut member.part {
            part.layout_bytes_down = part.layout_bytes_down.saturating_sub(layout_bytes);
        }
    }
}

fn closing_line(record: &v1::RoundRecord) -> String {
    let mut text = result_line(record);
    if let Some(to) = record.rolled_back_to {
        text += &format!("; rolled back to {}", rolled_back_place(to));
    } else if record.best_round == Some(record.round) && record.round > 1 {
        text += "; the best so far";
    }
    text
}

fn result_line(record: &v1::RoundRecord) -> String {
    if let Some((measured, after)) = record.measurement.as_ref().and_then(|m| Some((m, m.after.as_ref()?))) {
        let (loss, accuracy, client) = (after.loss, after.accuracy, &measured.client);
        return format!("round {} closed: loss {loss:.4}, accuracy {accuracy:.4} at {client}", record.round);
    }
    let measured: Vec<&v1::Evaluation> = record.participants.iter().filter_map(|p| p.after.as_ref()).collect();
    let examples: f64 = measured.iter().map(|evaluation| evaluation.examples as f64).sum();
    if examples == 0.0 {
        return format!("round {} closed", record.round);
    }
    let hits: f64 = measured.iter().map(|evaluation| evaluation.accuracy * evaluation.examples as f64).sum();
    let accuracy = hits / examples;
    let loss = record.held_out_loss.map(|loss| format!("loss {loss:.4}, ")).unwrap_or_default();
    format!("round {} closed: {loss}accuracy {accuracy:.4} over {} clients", record.round, measured.len())
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
    live.open = OpenRound::new(round, RoundKind::Train);
    live.phase = Phase::Recruiting(Recruiting::default());
}
