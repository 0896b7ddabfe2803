//! What warm-up and training have in common: updates come in until the round policy says to go on or to give up.

use rondo_methods::Instance;
use rondo_proto::{ClientId, Digest, v1};

use super::ended::{self, Outcome};
use super::{Phase, Recruiting, aggregating};
use crate::desk::{Desk, seconds};
use crate::effect::UploadOutcome;
use crate::guarantee;
use crate::input::{StoredUpdate, WorkKey};
use crate::policy::{Because, Progress, Verdict, Window};
use crate::rejection::Rejection;
use crate::state::{PartState, Run, Update};

/// More examples than any client has; a larger count is a mistake, or an attempt to own the weighted mean.
const MOST_EXAMPLES: u64 = 1 << 32;

/// What an update from this client would meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upload {
    /// It is waited for.
    Wanted,
    /// It is decided already.
    Settled(UploadOutcome),
}

/// Looks up what an update would meet. Changes nothing.
pub(crate) fn standing(run: &Run, client: &ClientId, work: &WorkKey, digest: &Digest) -> Result<Upload, Rejection> {
    if let Some(closed) = run.rounds.get(&work.round) {
        return in_closed_round(run, &closed.record, client, work, digest);
    }
    let open = &run.live.open;
    if (open.round, open.attempt) != (work.round, work.attempt) {
        return Err(super::not_open(run, work));
    }
    let part = run
        .members
        .get(client)
        .and_then(|member| member.part.as_ref())
        .filter(|part| part.attempt == open.attempt)
        .ok_or_else(|| Rejection::NotSelected { client: client.clone(), run: work.run.clone(), round: work.round })?;
    match part.state {
        PartState::Selected | PartState::Working => Ok(Upload::Wanted),
        PartState::Spare => Ok(Upload::Settled(UploadOutcome::Spare)),
        PartState::Dropped => Err(Rejection::Dropped {
            client: client.clone(),
            run: work.run.clone(),
            round: work.round,
            reason: part.reason.clone(),
        }),
        PartState::Accepted => match &part.update {
            Some(first) if first.digest != *digest => Err(another(client, work, first.digest, *digest)),
            _ => Ok(Upload::Settled(UploadOutcome::Accepted)),
        },
    }
}

/// A reply may have been lost and the round gone on since: the same update gets the same answer.
fn in_closed_round(
    run: &Run,
    record: &v1::RoundRecord,
    client: &ClientId,
    work: &WorkKey,
    digest: &Digest,
) -> Result<Upload, Rejection> {
    let participant = record.participants.iter().find(|participant| participant.client == client.as_str());
    match participant.map(|participant| (participant.state.as_str(), participant.update_digest.as_str())) {
        Some(("accepted", accepted)) if accepted == digest.to_string() => Ok(Upload::Settled(UploadOutcome::Accepted)),
        Some(("spare", _)) if record.attempt == work.attempt => Ok(Upload::Settled(UploadOutcome::Spare)),
        _ => Err(super::not_open(run, work)),
    }
}

fn another(client: &ClientId, work: &WorkKey, first: Digest, second: Digest) -> Rejection {
    Rejection::AnotherUpdate { client: client.clone(), run: work.run.clone(), round: work.round, first, second }
}

/// Takes an update that the door let in.
pub(crate) fn store(
    desk: &mut Desk<'_>,
    client: &ClientId,
    work: &WorkKey,
    update: StoredUpdate,
) -> Result<UploadOutcome, Rejection> {
    let outcome = match standing(desk.run(), client, work, &update.digest)? {
        Upload::Settled(UploadOutcome::Spare) => return Ok(spare(desk, client, &update)),
        Upload::Settled(outcome) => {
            // It may have come after its round was aggregated and its blob dropped.
            desk.discard(update.digest);
            return Ok(outcome);
        }
        Upload::Wanted => judge(desk, client, work, &update)?,
    };
    count_bytes(desk, client, &update);
    match &outcome {
        UploadOutcome::Accepted => accept(desk, client, update),
        UploadOutcome::Spare => {
            desk.discard(update.digest);
            if let Some(part) = desk.part(client) {
                part.state = PartState::Spare;
                part.reason = "the cohort was full".to_owned();
            }
        }
        UploadOutcome::Refused { reason } => {
            if guarantee::is_set_back(desk.run(), client, &update) {
                desk.member(client).set_back = true;
            }
            desk.discard(update.digest);
            drop_client(desk, client, format!("update refused: {reason}"));
        }
    }
    Ok(outcome)
}

/// Adds an upload to its client's bytes; the same upload once.
fn count_bytes(desk: &mut Desk<'_>, client: &ClientId, update: &StoredUpdate) {
    let open = &desk.run().live.open;
    let instance = Instance::in_round(open.round).with_rank(update.rank as usize).of_client(client.as_str());
    let layout_bytes = desk.job.upload_bytes(open.kind.into(), instance);
    let Some(part) = desk.part(client).filter(|part| part.counted != Some(update.digest)) else { return };
    part.counted = Some(update.digest);
    part.bytes_up = part.bytes_up.saturating_add(update.bytes_up);
    part.layout_bytes_up = part.layout_bytes_up.saturating_add(layout_bytes);
}

/// An update nobody needs: its bytes were sent all the same.
fn spare(desk: &mut Desk<'_>, client: &ClientId, update: &StoredUpdate) -> UploadOutcome {
    desk.discard(update.digest);
    // A closed round's record is not touched any more.
    let is_open = desk.run().parts().any(|(id, part)| id == client && part.state == PartState::Spare);
    if is_open {
        count_bytes(desk, client, update);
    }
    UploadOutcome::Spare
}

/// Decides on an update that is waited for. Changes nothing.
fn judge(
    desk: &Desk<'_>,
    client: &ClientId,
    work: &WorkKey,
    update: &StoredUpdate,
) -> Result<UploadOutcome, Rejection> {
    let run = desk.run();
    let agreed = run.members.get(client).and_then(|member| member.part.as_ref()).map_or(0, |part| part.rank);
    if update.rank != agreed {
        let (client, run) = (client.clone(), work.run.clone());
        return Err(Rejection::UpdateRank { client, run, expected: agreed, got: update.rank });
    }
    let version = run.adapter(None).version();
    if run.spec.accumulates && update.base_version != version {
        return Err(Rejection::BaseVersion {
            client: client.clone(),
            run: work.run.clone(),
            round: work.round,
            expected: version,
            got: update.base_version,
        });
    }
    let refused = |reason: String| Ok(UploadOutcome::Refused { reason });
    if let Some(breach) = guarantee::breach(run, client, update) {
        return refused(breach);
    }
    if update.examples == 0 && run.spec.privacy.is_none() {
        return refused("it rests on no training example".to_owned());
    }
    if update.examples > MOST_EXAMPLES {
        return refused(format!("it claims {} training examples, more than {MOST_EXAMPLES}", update.examples));
    }
    if !update.norm.is_finite() {
        return refused(format!("its norm is {}", update.norm));
    }
    if !update.train_loss.is_finite() {
        return refused(format!("its training loss is {}: the training diverged", update.train_loss));
    }
    if let Some(limit) = run.update_norm_limit().filter(|limit| update.norm > *limit) {
        return refused(format!("its norm {} is above the run's limit {limit}", update.norm));
    }
    // A paused run decides nothing, so more than a cohort of updates can come in.
    if run.accepted().count() >= run.wanted() {
        return Ok(UploadOutcome::Spare);
    }
    Ok(UploadOutcome::Accepted)
}

fn accept(desk: &mut Desk<'_>, client: &ClientId, update: StoredUpdate) {
    let before = update.before.filter(is_measured);
    let is_private = desk.run().releases().is_some();
    if let Some(part) = desk.part(client) {
        part.state = PartState::Accepted;
        part.before = before;
        part.update = Some(Update {
            digest: update.digest,
            examples: update.examples,
            train_loss: update.train_loss,
            train_seconds: if update.train_seconds.is_finite() { update.train_seconds } else { 0.0 },
            // Of what is only safe in a sum nothing else is told.
            norm: if is_private { 0.0 } else { update.norm },
            privacy: update.privacy.clone(),
        });
    }
    // What was spent stays spent, whatever becomes of the round.
    if update.privacy.is_some() {
        desk.member(client).privacy = update.privacy;
    }
    let (count, cohort) = (desk.run().accepted().count(), desk.run().wanted());
    desk.announce(Some(client), format!("update accepted ({count} of {cohort})"));
}

/// Whether an evaluation holds numbers that make sense. One that does not is as good as none.
pub(crate) fn is_measured(evaluation: &v1::Evaluation) -> bool {
    evaluation.loss.is_finite()
        && (0.0..=1.0).contains(&evaluation.accuracy)
        && (1..=MOST_EXAMPLES).contains(&evaluation.examples)
}

/// Takes a client out of the open attempt. An update it may have sent is dropped too.
pub(crate) fn drop_client(desk: &mut Desk<'_>, client: &ClientId, reason: String) {
    let round = desk.run().live.open.round;
    let Some(part) = desk.part(client) else { return };
    part.state = PartState::Dropped;
    part.reason.clone_from(&reason);
    let update = part.update.take();
    desk.member(client).failed_in = Some(round);
    if let Some(update) = update {
        desk.discard(update.digest);
    }
    desk.announce(Some(client), format!("dropped from round {round}: {reason}"));
}

/// Goes on or gives up, if the round policy says so.
pub(crate) fn settle(desk: &mut Desk<'_>) -> bool {
    let (Phase::WarmUp(super::WarmUp { window }) | Phase::Training(super::Training { window })) =
        &desk.run().live.phase
    else {
        return false;
    };
    let policy = desk.run().spec.policy.clone();
    let progress = Progress {
        done: desk.run().accepted().count(),
        open: desk.run().parts().filter(|(_, part)| part.state.is_open()).count(),
        wanted: desk.run().wanted(),
        quorum: policy.quorum as usize,
    };
    let mut judged = window.clone();
    let verdict = match desk.run().coins() {
        Some(_) => judged.judge_drawn(desk.now(), &policy, progress.open),
        None => judged.judge(desk.now(), &policy, progress),
    };
    match verdict {
        Verdict::Wait => {
            keep_window(desk, judged);
            false
        }
        Verdict::Go(because) => {
            leave_behind(desk, because);
            aggregating::begin(desk);
            true
        }
        Verdict::Fail(because) => {
            leave_behind(desk, because);
            let why = format!("{} of {} needed updates", progress.done, progress.quorum);
            fail_attempt(desk, &why);
            true
        }
    }
}

fn keep_window(desk: &mut Desk<'_>, judged: Window) {
    let phase = match &desk.run().live.phase {
        Phase::WarmUp(phase) if phase.window != judged => Phase::WarmUp(super::WarmUp { window: judged }),
        Phase::Training(phase) if phase.window != judged => Phase::Training(super::Training { window: judged }),
        _ => return,
    };
    desk.live().phase = phase;
}

/// Settles those whose update did not come.
fn leave_behind(desk: &mut Desk<'_>, because: Because) {
    let policy = &desk.run().spec.policy;
    let reason = match because {
        Because::Complete => "the cohort was full".to_owned(),
        Because::NobodyLeft => "too few of the others were left for a quorum".to_owned(),
        Because::Grace => format!("no update within {} after quorum was reached", seconds(policy.grace_ms)),
        Because::Deadline => format!("no update within the deadline of {}", seconds(policy.deadline_ms)),
    };
    let late: Vec<ClientId> =
        desk.run().parts().filter(|(_, part)| part.state.is_open()).map(|(client, _)| client.clone()).collect();
    for client in late {
        if because == Because::Complete {
            if let Some(part) = desk.part(&client) {
                part.state = PartState::Spare;
                part.reason.clone_from(&reason);
            }
        } else {
            drop_client(desk, &client, reason.clone());
        }
    }
}

/// Ends the open attempt without a result: another one is made, with a new draw, or the run fails.
pub(crate) fn fail_attempt(desk: &mut Desk<'_>, why: &str) {
    let open = desk.run().live.open.clone();
    let max_attempts = desk.run().spec.policy.max_attempts;
    let text = format!("attempt {} at round {} failed: {why}", open.attempt, open.round);
    desk.announce(None, text.clone());
    desk.note(text);
    if open.attempt >= max_attempts {
        let attempts = if open.attempt == 1 { "1 attempt".to_owned() } else { format!("{} attempts", open.attempt) };
        return ended::end(desk, Outcome::Failed(format!("round {} after {attempts}: {why}", open.round)));
    }

    let parts: Vec<ClientId> = desk.run().parts().map(|(client, _)| client.clone()).collect();
    for client in parts {
        let Some(part) = desk.part(&client) else { continue };
        if part.state != PartState::Dropped {
            part.state = PartState::Dropped;
            part.reason = "the attempt failed without it".to_owned();
        }
        part.reason = format!("attempt {}: {}", open.attempt, part.reason);
        if let Some(update) = part.update.take() {
            desk.discard(update.digest);
        }
    }
    let now = desk.now();
    let live = desk.live();
    live.open.attempt += 1;
    live.phase = Phase::Recruiting(Recruiting::again(now, live.open.attempt));
}
