//! Publishing: the new adapter is out. Clients measure it when an evaluation is due; then the
//! round's record closes.

use std::collections::BTreeSet;

use rondo_proto::{ClientId, Digest, RunId, v1};

use crate::key::RoundKind;
use crate::phases::ended;
use crate::phases::measuring::{ask, is_measured, why_late};
use crate::policy::{Decision, HeldOut, Progress, Window};
use crate::rejection::Rejection;
use crate::round_record::open_record;
use crate::run_context::RunContext;
use crate::state::participation::{EvaluationState, ParticipationState};
use crate::state::phase::{Outcome, Phase, Publishing, Recruiting};
use crate::state::publication::{ClosedRound, Publication};
use crate::state::{Fetch, OpenRound, Run};

/// Publishes and asks for evaluations if they are due.
pub(crate) fn begin(ctx: &mut RunContext<'_>, publication: Publication, plan: Digest) {
    let policy = ctx.run().spec.policy.clone();
    let open = ctx.run().live.open.clone();
    let is_due = open.kind == RoundKind::Train && policy.evaluates(open.round);
    let evaluator = ctx.run().spec.evaluator.clone();
    let everybody = is_due && evaluator.is_none();
    let evaluators: Vec<ClientId> = ctx
        .run()
        .participations()
        .filter(|(client, part)| everybody && part.state != ParticipationState::Dropped && ctx.is_active(client))
        .map(|(client, _)| client.clone())
        .collect();
    let error = publication.error.map(|error| format!(", aggregation error {error:.1e}")).unwrap_or_default();
    ctx.announce(None, format!("round {} published{error}", open.round));

    for client in &evaluators {
        if let Some(part) = ctx.participation(client) {
            part.evaluation = EvaluationState::Due;
        }
    }
    let measuring = evaluator.filter(|_| is_due).map(|evaluator| Box::new(ask(ctx, &evaluator)));
    let is_asked = measuring.as_ref().is_some_and(|measuring| measuring.state.is_open());
    let window = (is_asked || !evaluators.is_empty()).then(|| Window::open(ctx.now(), &policy));
    ctx.live().phase = Phase::Publishing(Publishing { publication, plan, window, measuring });
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
pub(crate) fn evaluated(ctx: &mut RunContext<'_>, client: &ClientId, evaluation: v1::Evaluation) {
    if !is_measured(&evaluation) {
        let text = format!("evaluation failed: loss {}, accuracy {}", evaluation.loss, evaluation.accuracy);
        if !evaluation.loss.is_finite() {
            ctx.live().open.diverged = true;
        }
        return give_up_evaluation(ctx, client, text);
    }
    let text = format!("accuracy {:.4}, loss {:.4}", evaluation.accuracy, evaluation.loss);
    if let Some(measuring) = ctx.measuring() {
        measuring.state = EvaluationState::Done;
        measuring.after = Some(evaluation);
    } else if let Some(part) = ctx.participation(client) {
        part.evaluation = EvaluationState::Done;
        part.after = Some(evaluation);
    }
    ctx.announce(Some(client), text);
}

/// Notes that a client's site withholds its measurements.
pub(crate) fn withheld(ctx: &mut RunContext<'_>, client: &ClientId) {
    if let Some(part) = ctx.participation(client) {
        part.metrics_withheld = true;
    }
    give_up_evaluation(ctx, client, "measurements withheld by the site".to_owned());
}

/// Gives up on a client's evaluation.
pub(crate) fn give_up_evaluation(ctx: &mut RunContext<'_>, client: &ClientId, why: String) {
    if let Some(measuring) = ctx.measuring() {
        measuring.state = EvaluationState::Missed;
        measuring.reason.clone_from(&why);
    } else if let Some(part) = ctx.participation(client) {
        part.evaluation = EvaluationState::Missed;
    }
    ctx.note(format!("{client}: {why}"));
    ctx.announce(Some(client), why);
}

/// Closes the round when all evaluations are in, or their time is over.
pub(crate) fn advance(ctx: &mut RunContext<'_>) -> bool {
    let Phase::Publishing(publishing) = &ctx.run().live.phase else { return false };
    if let Some(window) = &publishing.window {
        let policy = &ctx.run().spec.policy;
        let states: Vec<EvaluationState> = match &publishing.measuring {
            Some(measuring) => vec![measuring.state],
            None => ctx.run().participations().map(|(_, part)| part.evaluation).collect(),
        };
        let count = |state: fn(&EvaluationState) -> bool| states.iter().filter(|s| state(s)).count();
        let done = count(|state| *state == EvaluationState::Done);
        let open = count(|state| state.is_open());
        let wanted = count(|state| *state != EvaluationState::None);
        // A round is valid whether or not it was measured. Whoever is left makes the quorum, so
        // nothing fails here.
        let quorum = (policy.quorum as usize).min(done + open);
        let mut decided = window.clone();
        if decided.decide(ctx.now(), policy, Progress { done, open, wanted, quorum }) == Decision::Wait {
            if decided != *window {
                let publishing = Publishing { window: Some(decided), ..publishing.clone() };
                ctx.live().phase = Phase::Publishing(publishing);
            }
            return false;
        }
    }
    close(ctx);
    open_next_round(ctx);
    true
}

/// Writes the round's record. The phase stays: the caller opens the next round or ends the run.
pub(crate) fn close(ctx: &mut RunContext<'_>) {
    let Phase::Publishing(publishing) = &ctx.run().live.phase else { return };
    let publication = publishing.publication.clone();
    let measures = publishing.measuring.iter().map(|measuring| &measuring.client);
    let asked = ctx.run().participations().map(|(client, _)| client).chain(measures);
    let late: BTreeSet<ClientId> = asked.filter(|client| ctx.run().evaluation_of(client).is_open()).cloned().collect();
    for client in late {
        let why = why_late(ctx, &client);
        give_up_evaluation(ctx, &client, why);
    }
    forget_undelivered(ctx);
    let servers = ctx.run().server_blobs();

    let round = ctx.run().live.open.round;
    let mut record = open_record(ctx.id, ctx.run(), ctx.liveness);
    record.ended_at_ms = ctx.now().max(record.started_at_ms);
    compare_with_best(ctx.run(), &mut record);
    let text = closing_line(&record);
    ctx.close_round(round, ClosedRound { record, publication });
    discard_servers(ctx, servers);
    ctx.announce_close(text);
}

/// Compares the round with the best before it, and rolls it back when it is worse by more than the
/// run allows.
fn compare_with_best(run: &Run, record: &mut v1::RoundRecord) {
    let held_out = run.held_out();
    let best = run.best();
    record.best_round = best.map(|(round, _)| round);
    if let HeldOut::Loss(loss) = held_out {
        record.held_out_loss = Some(loss);
        if best.is_none_or(|(_, best)| loss < best) {
            record.best_round = Some(record.round);
        }
    }
    if !run.spec.policy.rolls_back(held_out, best.map(|(_, loss)| loss)) {
        return;
    }
    let to = best.map_or(0, |(round, _)| round);
    record.rolled_back_to = Some(to);
    let place = rolled_back_place(to);
    let found = match held_out {
        HeldOut::Loss(loss) => format!("its held-out loss is {loss:.4}"),
        HeldOut::Diverged | HeldOut::None => "its held-out loss is no finite number".to_owned(),
    };
    let limit = best
        .zip(run.spec.policy.rollback)
        .map(|((_, best), share)| format!(", at most {best:.4} and {} % is allowed", share * 100.0));
    record.notes.push(format!("rolled back to {place}: {found}{}", limit.unwrap_or_default()));
}

fn rolled_back_place(round: u32) -> String {
    if round == 0 { "the start".to_owned() } else { format!("round {round}") }
}

/// Drops states of the server optimiser that were needed and are no more.
pub(crate) fn discard_servers(ctx: &mut RunContext<'_>, before: BTreeSet<Digest>) {
    let needed = ctx.run().server_blobs();
    before.difference(&needed).for_each(|digest| ctx.discard(*digest));
}

/// Downloads that were assigned in this round and never began are not this round's: they are
/// assigned again.
fn forget_undelivered(ctx: &mut RunContext<'_>) {
    let round = ctx.run().live.open.round;
    let idle: Vec<(ClientId, Digest, Fetch)> = ctx
        .run()
        .members
        .iter()
        .flat_map(|(client, member)| member.fetches.iter().map(move |(digest, fetch)| (client, digest, fetch)))
        .filter(|(_, _, fetch)| fetch.round == round && !fetch.delivered)
        .map(|(client, digest, fetch)| (client.clone(), *digest, fetch.clone()))
        .collect();
    for (client, digest, Fetch { layout_bytes, measuring, .. }) in idle {
        let member = ctx.member(&client);
        member.fetches.remove(&digest);
        if measuring {
            if let Some(measuring) = ctx.measuring() {
                measuring.layout_bytes_down = measuring.layout_bytes_down.saturating_sub(layout_bytes);
            }
        } else if let Some(part) = &mut member.participation {
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
        return format!(
            "round {} closed: loss {:.4}, accuracy {:.4} at {}",
            record.round, after.loss, after.accuracy, measured.client
        );
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
fn open_next_round(ctx: &mut RunContext<'_>) {
    let members: Vec<ClientId> = ctx
        .run()
        .members
        .iter()
        .filter(|(_, member)| member.participation.is_some())
        .map(|(client, _)| client.clone())
        .collect();
    for client in members {
        ctx.member(&client).participation = None;
    }
    let open = &ctx.run().live.open;
    let is_last = open.kind == RoundKind::Train && open.round >= ctx.run().spec.policy.rounds;
    if is_last {
        return ended::end(ctx, Outcome::Completed);
    }
    let round = open.round + 1;
    let live = ctx.live();
    live.open = OpenRound::new(round, RoundKind::Train);
    live.phase = Phase::Recruiting(Recruiting::default());
}
