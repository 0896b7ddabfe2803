//! What comes back: from clients at work, and from the executor.

use rondo_methods::Instance;
use rondo_proto::run_file::RunFile;
use rondo_proto::{ClientId, Digest, RunId, groups, v1};

use crate::effect::{Reply, UploadOutcome};
use crate::engine::{Engine, PendingReply};
use crate::input::StoredUpdate;
use crate::key::{RoundKind, WorkKey};
use crate::liveness::Progress;
use crate::phases::aggregating::{self, Aggregate};
use crate::phases::collecting::{self, Upload};
use crate::phases::{attempt, charging, publishing};
use crate::rejection::Rejection;
use crate::run_context::{Changes, RunContext, clean};
use crate::state::Run;
use crate::state::phase::Phase;
use crate::state::publication::AdapterBlobs;

/// What must be known of an upload before its first byte is taken.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpectedUpload {
    /// It is waited for.
    Wanted {
        /// Warm-up statistic or update.
        kind: RoundKind,
        /// The rank agreed with the client.
        rank: u32,
        /// Tensor bytes by the layout's formula; a file adds its header to that.
        layout_bytes: u64,
        /// Largest L2 norm accepted; absent = any finite one.
        max_norm: Option<f64>,
        /// Present where updates must arrive clipped.
        clipped: Option<Box<Clipped>>,
    },
    /// It is decided already.
    Decided(UploadOutcome),
}

/// The bound on an update that must arrive clipped. It applies to the change that the update makes
/// to what its round began with.
#[derive(Debug, Clone, PartialEq)]
pub struct Clipped {
    /// Largest L2 norm of the change, over all tensors together.
    pub clip: f64,
    /// What the round began with.
    pub start: AdapterBlobs,
}

impl Engine {
    /// What would become of an update from this client. Changes nothing. For upload status and
    /// validation.
    ///
    /// # Errors
    /// No update is wanted from this client, and why.
    pub fn expected_upload(
        &self,
        client: &ClientId,
        work: &WorkKey,
        digest: &Digest,
    ) -> Result<ExpectedUpload, Rejection> {
        self.working_client(client)?;
        let run = self.state.runs.get(&work.run).ok_or_else(|| Rejection::UnknownRun { run: work.run.clone() })?;
        match collecting::upload_status(run, client, work, digest) {
            Ok(Upload::Decided(outcome)) => return Ok(ExpectedUpload::Decided(outcome)),
            Err(rejection) => return Err(ended(run, work).unwrap_or(rejection)),
            Ok(Upload::Wanted) => {}
        }
        let job = self.jobs.get(&work.run).ok_or_else(|| Rejection::UnknownRun { run: work.run.clone() })?;
        let rank = run.members.get(client).and_then(|member| member.participation.as_ref()).map_or(0, |part| part.rank);
        let kind = run.live.open.kind;
        let instance = Instance::in_round(work.round).with_rank(rank as usize).of_client(client.as_str());
        let layout_bytes = job.upload_bytes(kind.into(), instance);
        let clipped = run.clip().map(|clip| Box::new(Clipped { clip, start: run.adapter(None) }));
        Ok(ExpectedUpload::Wanted { kind, rank, layout_bytes, max_norm: run.update_norm_limit(), clipped })
    }

    pub(crate) fn heartbeat(
        &mut self,
        client: &ClientId,
        work: WorkKey,
        state: String,
        (step, steps): (u32, u32),
        loss: f64,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        self.working_client(client)?;
        let reason = self.why_stop(client, &work, state == "evaluating");
        if reason.is_none() {
            // With privacy no loss is kept, whatever is sent.
            let is_open = self.state.runs.get(&work.run).is_some_and(|run| run.spec.privacy.is_none());
            let loss = (is_open && loss.is_finite()).then_some(loss);
            self.liveness.report(client, Progress { work, state, step, steps, loss });
        }
        self.liveness.saw(client, changes.now);
        let stop = reason.is_some();
        Ok(PendingReply::Ready(Reply::Heartbeat { stop, reason: reason.unwrap_or_default() }))
    }

    /// Why a client should stop what it does, if it should. Training goes on no longer than its
    /// phase, even if the client is to measure the result next.
    fn why_stop(&self, client: &ClientId, work: &WorkKey, is_measuring: bool) -> Option<String> {
        let Some(run) = self.state.runs.get(&work.run) else { return Some(format!("there is no run `{}`", work.run)) };
        if let Some(rejection) = ended(run, work) {
            return Some(rejection.to_string());
        }
        let open = &run.live.open;
        if (open.round, open.attempt) != (work.round, work.attempt) {
            return Some(run.not_open(work).to_string());
        }
        if run.is_open_for(client) && is_measuring == matches!(run.live.phase, Phase::Publishing(_)) {
            return None;
        }
        let part = run.members.get(client).and_then(|member| member.participation.as_ref());
        let reason = part.map_or("it was not selected", |part| part.reason.as_str());
        let reason = if reason.is_empty() { "its part is done" } else { reason };
        Some(format!("run `{}` round {} went on without this work: {reason}", work.run, work.round))
    }

    pub(crate) fn upload_begun(
        &mut self,
        client: &ClientId,
        work: WorkKey,
        digest: &Digest,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        let expected = self.expected_upload(client, &work, digest)?;
        self.liveness.saw(client, changes.now);
        if let ExpectedUpload::Decided(outcome) = expected {
            return Ok(PendingReply::Ready(Reply::Upload(outcome)));
        }
        let before = self.liveness.progress(client, &work).cloned();
        let (step, steps) = before.as_ref().map_or((0, 0), |progress| (progress.step, progress.steps));
        let loss = before.and_then(|progress| progress.loss);
        self.liveness.report(client, Progress { work, state: "uploading".to_owned(), step, steps, loss });
        Ok(PendingReply::Ready(Reply::Done))
    }

    pub(crate) fn update_stored(
        &mut self,
        client: &ClientId,
        work: &WorkKey,
        mut update: StoredUpdate,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        let expected = self.expected_upload(client, work, &update.digest)?;
        if let (Some(before), Some(run)) = (update.before.take(), self.state.runs.get(&work.run)) {
            update.before = Some(without_small_groups(run, before, update.min_group)?);
        }
        let outcome = match (expected, self.open_run(&work.run, changes)) {
            // The run may have ended since; the answer to what was accepted stays the same.
            (ExpectedUpload::Decided(outcome), Err(_)) => {
                changes.dropped_blobs.entry(work.run.clone()).or_default().insert(update.digest);
                outcome
            }
            (_, ctx) => collecting::store(&mut ctx?, client, work, update)?,
        };
        self.liveness.saw(client, changes.now);
        Ok(PendingReply::Ready(Reply::Upload(outcome)))
    }

    pub(crate) fn update_refused(
        &mut self,
        client: &ClientId,
        work: &WorkKey,
        reason: &str,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        self.working_client(client)?;
        let mut ctx = self.open_run(&work.run, changes)?;
        if has_open_update(&ctx, client, work) {
            attempt::drop_client(&mut ctx, client, format!("update refused: {}", clean(reason)));
        }
        self.liveness.saw(client, changes.now);
        Ok(PendingReply::Ready(Reply::Done))
    }

    pub(crate) fn client_failed(
        &mut self,
        client: &ClientId,
        work: &WorkKey,
        reason: &str,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        self.working_client(client)?;
        let mut ctx = self.open_run(&work.run, changes)?;
        if has_open_update(&ctx, client, work) {
            attempt::drop_client(&mut ctx, client, format!("the client failed: {}", clean(reason)));
        } else if ctx.work() == *work
            && matches!(ctx.run().live.phase, Phase::Publishing(_))
            && ctx.run().evaluation_of(client).is_open()
        {
            publishing::give_up_evaluation(&mut ctx, client, format!("the evaluation failed: {}", clean(reason)));
        }
        self.liveness.saw(client, changes.now);
        Ok(PendingReply::Ready(Reply::Done))
    }

    pub(crate) fn delivered(
        &mut self,
        client: &ClientId,
        run: &RunId,
        digest: &Digest,
        bytes: u64,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        self.working_client(client)?;
        // Operators and ended runs are served too; only what was assigned is counted.
        if let Ok(mut ctx) = self.open_run(run, changes)
            && ctx.run().members.get(client).is_some_and(|member| member.fetches.contains_key(digest))
        {
            let member = ctx.member(client);
            let mut measuring = false;
            if let Some(fetch) = member.fetches.get_mut(digest) {
                fetch.delivered = true;
                measuring = fetch.measuring;
            }
            if !measuring && let Some(part) = &mut member.participation {
                part.bytes_down += bytes;
            } else if let Some(measuring) = ctx.measuring().filter(|measuring| measuring.client == *client) {
                measuring.bytes_down += bytes;
            }
        }
        self.liveness.saw(client, changes.now);
        Ok(PendingReply::Ready(Reply::Done))
    }

    pub(crate) fn evaluated(
        &mut self,
        client: &ClientId,
        run: &RunId,
        round: u32,
        (result, min_group): (v1::Evaluation, u32),
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        self.working_client(client)?;
        let known = self.state.runs.get(run).ok_or_else(|| Rejection::UnknownRun { run: run.clone() })?;
        if publishing::expects(run, known, client, round)? {
            let result = without_small_groups(known, result, min_group)?;
            publishing::evaluated(&mut self.open_run(run, changes)?, client, result);
        }
        self.liveness.saw(client, changes.now);
        Ok(PendingReply::Ready(Reply::Done))
    }

    /// The client's site withholds its measurements: nothing is waited for any longer.
    pub(crate) fn withheld(
        &mut self,
        client: &ClientId,
        work: &WorkKey,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        self.working_client(client)?;
        let mut ctx = self.open_run(&work.run, changes)?;
        if ctx.work() == *work
            && matches!(ctx.run().live.phase, Phase::Publishing(_))
            && ctx.run().evaluation_of(client).is_open()
        {
            publishing::withheld(&mut ctx, client);
        }
        self.liveness.saw(client, changes.now);
        Ok(PendingReply::Ready(Reply::Done))
    }

    pub(crate) fn aggregated(
        &mut self,
        work: &WorkKey,
        aggregate: Aggregate,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        match self.open_run(&work.run, changes) {
            Ok(mut ctx) => aggregating::aggregated(&mut ctx, work, aggregate),
            // The run ended while the executor worked: nobody needs the result.
            Err(_) => {
                changes.dropped_blobs.entry(work.run.clone()).or_default().extend(aggregate.blobs());
            }
        }
        Ok(PendingReply::Ready(Reply::Done))
    }

    pub(crate) fn releasing(&mut self, work: &WorkKey, changes: &mut Changes) -> Result<PendingReply, Rejection> {
        let granted = charging::charge(&mut self.open_run(&work.run, changes)?, work)?;
        self.forget_job_if_ended(&work.run);
        Ok(PendingReply::Ready(Reply::Release { granted }))
    }

    pub(crate) fn aggregate_failed(
        &mut self,
        work: &WorkKey,
        reason: &str,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        if let Ok(mut ctx) = self.open_run(&work.run, changes) {
            aggregating::failed(&mut ctx, work, &clean(reason));
        }
        self.forget_job_if_ended(&work.run);
        Ok(PendingReply::Ready(Reply::Done))
    }
}

/// An evaluation as it enters the engine: with no small group, whatever the client sent. Records,
/// events, model cards and JSON are made from what the engine keeps.
fn without_small_groups(run: &Run, result: v1::Evaluation, min_group: u32) -> Result<v1::Evaluation, Rejection> {
    if result.groups.is_empty() {
        return Ok(result);
    }
    let task = RunFile::parse(&run.spec.run_file)?.task.kind;
    Ok(groups::fold_small(result, groups::limit_of_peer(min_group), task))
}

/// The rejection of work for a run that is over, if it is.
fn ended(run: &Run, work: &WorkKey) -> Option<Rejection> {
    let Phase::Ended(ended) = &run.live.phase else { return None };
    Some(Rejection::RunEnded { run: work.run.clone(), outcome: ended.outcome.to_string() })
}

/// Whether an update for exactly this work may still come.
fn has_open_update(ctx: &RunContext<'_>, client: &ClientId, work: &WorkKey) -> bool {
    let is_collecting = matches!(ctx.run().live.phase, Phase::WarmUp(_) | Phase::Training(_));
    is_collecting
        && ctx.work() == *work
        && ctx.run().participations().any(|(id, part)| id == client && part.state.is_open())
}
