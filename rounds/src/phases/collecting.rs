//! What warm-up and training have in common: updates come in until the round policy says to go on
//! or to give up.

use rondo_methods::Instance;
use rondo_proto::{ClientId, Digest, v1};

use crate::effect::UploadOutcome;
use crate::guarantee;
use crate::input::StoredUpdate;
use crate::key::WorkKey;
use crate::phases::aggregating;
use crate::phases::attempt::{drop_client, fail_attempt};
use crate::phases::measuring::{MOST_EXAMPLES, is_measured};
use crate::policy::{Cause, Decision, Progress, Window};
use crate::rejection::Rejection;
use crate::run_context::{RunContext, seconds};
use crate::state::Run;
use crate::state::participation::{ParticipationState, Update};
use crate::state::phase::{Phase, Training, WarmUp};

/// What would become of an update from this client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upload {
    /// It is waited for.
    Wanted,
    /// It is decided already.
    Decided(UploadOutcome),
}

/// Looks up what would become of an update. Changes nothing.
pub(crate) fn upload_status(
    run: &Run,
    client: &ClientId,
    work: &WorkKey,
    digest: &Digest,
) -> Result<Upload, Rejection> {
    if let Some(closed) = run.rounds.get(&work.round) {
        return in_closed_round(run, &closed.record, client, work, digest);
    }
    let open = &run.live.open;
    if (open.round, open.attempt) != (work.round, work.attempt) {
        return Err(run.not_open(work));
    }
    let part = run
        .members
        .get(client)
        .and_then(|member| member.participation.as_ref())
        .filter(|part| part.attempt == open.attempt)
        .ok_or_else(|| Rejection::NotSelected { client: client.clone(), run: work.run.clone(), round: work.round })?;
    match part.state {
        ParticipationState::Selected | ParticipationState::Working => Ok(Upload::Wanted),
        ParticipationState::Spare => Ok(Upload::Decided(UploadOutcome::Spare)),
        ParticipationState::Dropped => Err(Rejection::Dropped {
            client: client.clone(),
            run: work.run.clone(),
            round: work.round,
            reason: part.reason.clone(),
        }),
        ParticipationState::Accepted => match &part.update {
            Some(first) if first.digest != *digest => Err(another(client, work, first.digest, *digest)),
            _ => Ok(Upload::Decided(UploadOutcome::Accepted)),
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
        Some(("accepted", accepted)) if accepted == digest.to_string() => Ok(Upload::Decided(UploadOutcome::Accepted)),
        Some(("spare", _)) if record.attempt == work.attempt => Ok(Upload::Decided(UploadOutcome::Spare)),
        _ => Err(run.not_open(work)),
    }
}

fn another(client: &ClientId, work: &WorkKey, first: Digest, second: Digest) -> Rejection {
    Rejection::AnotherUpdate { client: client.clone(), run: work.run.clone(), round: work.round, first, second }
}

/// Takes an update that passed validation.
pub(crate) fn store(
    ctx: &mut RunContext<'_>,
    client: &ClientId,
    work: &WorkKey,
    update: StoredUpdate,
) -> Result<UploadOutcome, Rejection> {
    let outcome = match upload_status(ctx.run(), client, work, &update.digest)? {
        Upload::Decided(UploadOutcome::Spare) => return Ok(spare(ctx, client, &update)),
        Upload::Decided(outcome) => {
            // It may have come after its round was aggregated and its blob dropped.
            ctx.discard(update.digest);
            return Ok(outcome);
        }
        Upload::Wanted => check_update(ctx, client, work, &update)?,
    };
    count_bytes(ctx, client, &update);
    match &outcome {
        UploadOutcome::Accepted => accept(ctx, client, update),
        UploadOutcome::Spare => {
            ctx.discard(update.digest);
            if let Some(part) = ctx.participation(client) {
                part.state = ParticipationState::Spare;
                part.reason = "the cohort was full".to_owned();
            }
        }
        UploadOutcome::Refused { reason } => {
            if guarantee::is_set_back(ctx.run(), client, &update) {
                ctx.member(client).set_back = true;
            }
            ctx.discard(update.digest);
            drop_client(ctx, client, format!("update refused: {reason}"));
        }
    }
    Ok(outcome)
}

/// Adds an upload to its client's bytes; the same upload once.
fn count_bytes(ctx: &mut RunContext<'_>, client: &ClientId, update: &StoredUpdate) {
    let open = &ctx.run().live.open;
    let instance = Instance::in_round(open.round).with_rank(update.rank as usize).of_client(client.as_str());
    let layout_bytes = ctx.job.upload_bytes(open.kind.into(), instance);
    let Some(part) = ctx.participation(client).filter(|part| part.counted != Some(update.digest)) else { return };
    part.counted = Some(update.digest);
    part.bytes_up = part.bytes_up.saturating_add(update.bytes_up);
    part.layout_bytes_up = part.layout_bytes_up.saturating_add(layout_bytes);
}

/// An update nobody needs: its bytes were sent all the same.
fn spare(ctx: &mut RunContext<'_>, client: &ClientId, update: &StoredUpdate) -> UploadOutcome {
    ctx.discard(update.digest);
    // A closed round's record is not touched any more.
    let is_open = ctx.run().participations().any(|(id, part)| id == client && part.state == ParticipationState::Spare);
    if is_open {
        count_bytes(ctx, client, update);
    }
    UploadOutcome::Spare
}

/// Decides on an update that is waited for. Changes nothing.
fn check_update(
    ctx: &RunContext<'_>,
    client: &ClientId,
    work: &WorkKey,
    update: &StoredUpdate,
) -> Result<UploadOutcome, Rejection> {
    let run = ctx.run();
    let agreed = run.members.get(client).and_then(|member| member.participation.as_ref()).map_or(0, |part| part.rank);
    if update.rank != agreed {
        let client = client.clone();
        let run = work.run.clone();
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

fn accept(ctx: &mut RunContext<'_>, client: &ClientId, update: StoredUpdate) {
    let before = update.before.filter(is_measured);
    let is_private = ctx.run().active_central().is_some();
    if let Some(part) = ctx.participation(client) {
        part.state = ParticipationState::Accepted;
        part.before = before;
        part.metrics_withheld = update.metrics_withheld;
        part.update = Some(Update {
            digest: update.digest,
            examples: update.examples,
            train_loss: update.train_loss,
            train_seconds: if update.train_seconds.is_finite() { update.train_seconds } else { 0.0 },
            // What is only safe in a sum is not reported otherwise.
            norm: if is_private { 0.0 } else { update.norm },
            privacy: update.privacy.clone(),
        });
    }
    // What was spent stays spent, whatever becomes of the round.
    if update.privacy.is_some() {
        ctx.member(client).privacy = update.privacy;
    }
    let count = ctx.run().accepted().count();
    let cohort = ctx.run().wanted();
    ctx.announce(Some(client), format!("update accepted ({count} of {cohort})"));
}

/// Goes on or gives up, if the round policy says so.
pub(crate) fn advance(ctx: &mut RunContext<'_>) -> bool {
    let (Phase::WarmUp(WarmUp { window }) | Phase::Training(Training { window })) = &ctx.run().live.phase else {
        return false;
    };
    let policy = ctx.run().spec.policy.clone();
    let progress = Progress {
        done: ctx.run().accepted().count(),
        open: ctx.run().participations().filter(|(_, part)| part.state.is_open()).count(),
        wanted: ctx.run().wanted(),
        quorum: policy.quorum as usize,
    };
    let mut window = window.clone();
    let decision = match ctx.run().poisson_sampling() {
        Some(_) => window.decide_drawn(ctx.now(), &policy, progress.open),
        None => window.decide(ctx.now(), &policy, progress),
    };
    match decision {
        Decision::Wait => {
            keep_window(ctx, window);
            false
        }
        Decision::Proceed(because) => {
            leave_behind(ctx, because);
            aggregating::begin(ctx);
            true
        }
        Decision::Fail(because) => {
            leave_behind(ctx, because);
            let why = format!("{} of {} needed updates", progress.done, progress.quorum);
            fail_attempt(ctx, &why);
            true
        }
    }
}

fn keep_window(ctx: &mut RunContext<'_>, window: Window) {
    let phase = match &ctx.run().live.phase {
        Phase::WarmUp(phase) if phase.window != window => Phase::WarmUp(WarmUp { window }),
        Phase::Training(phase) if phase.window != window => Phase::Training(Training { window }),
        _ => return,
    };
    ctx.live().phase = phase;
}

/// Drops or spares those whose update did not come.
fn leave_behind(ctx: &mut RunContext<'_>, because: Cause) {
    let policy = &ctx.run().spec.policy;
    let reason = match because {
        Cause::Complete => "the cohort was full".to_owned(),
        Cause::NobodyLeft => "too few of the others were left for a quorum".to_owned(),
        Cause::Grace => format!("no update within {} after quorum was reached", seconds(policy.grace_ms)),
        Cause::Deadline => format!("no update within the deadline of {}", seconds(policy.deadline_ms)),
    };
    let late: Vec<ClientId> =
        ctx.run().participations().filter(|(_, part)| part.state.is_open()).map(|(client, _)| client.clone()).collect();
    for client in late {
        if because == Cause::Complete {
            if let Some(part) = ctx.participation(&client) {
                part.state = ParticipationState::Spare;
                part.reason.clone_from(&reason);
            }
        } else {
            drop_client(ctx, &client, reason.clone());
        }
    }
}
