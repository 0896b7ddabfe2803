//! What operators do with runs.

use rondo_dp::{Privacy, PrivacyError, Terms};
use rondo_methods::{Job, Publication, Registry};
use rondo_proto::run_file::{EvaluationChoice, PrivacyChoice, RunFile, RunFileError};
use rondo_proto::{ClientId, RunId, v1};

use crate::engine::{Engine, PendingReply};
use crate::guarantee;
use crate::key::{CohortKey, Millis, RecordKey, RoundKind};
use crate::phases::{ended, publishing};
use crate::policy::Policy;
use crate::rejection::Rejection;
use crate::run_context::Changes;
use crate::state::phase::{Outcome, Phase, Recruiting};
use crate::state::start_adapter::StartAdapter;
use crate::state::{ClientStatus, Evaluator, Live, OpenRound, Run, Spec};

/// Checks everything about a run that can be checked before it starts.
fn specify(
    text: String,
    base: v1::BaseModel,
    start_adapter: Option<v1::InitialAdapter>,
    key: CohortKey,
    now: Millis,
    registry: &Registry,
) -> Result<(Spec, Job), Rejection> {
    let file = RunFile::parse(&text)?;
    file.check_base(&base)?;
    let privacy = file.privacy.as_ref().map_or(Ok(Privacy::None), privacy_terms)?;
    let job = Job::new(registry, &file, &base)?;
    guarantee::check(&privacy, &job)?;
    let policy = policy(&file);
    let central = guarantee::central(&privacy, &policy, key)?;
    let evaluator = file.evaluation.as_ref().map(evaluator).transpose()?;
    let start_adapter = start_adapter.map(|adapter| StartAdapter::of(adapter, &base, &job)).transpose()?;
    let spec = Spec {
        run_file: text,
        base,
        created_at: now,
        name: file.name,
        dataset: file.task.dataset,
        method: file.method.id,
        exactness: job.exactness_of_run().to_string(),
        rank: u32::try_from(file.method.rank).unwrap_or(u32::MAX),
        seed: file.train.seed,
        privacy,
        policy,
        accumulates: job.publication() == Publication::Accumulate,
        max_update_norm: file.rounds.max_update_norm,
        evaluator,
        start_adapter,
        central,
    };
    Ok((spec, job))
}

/// The guarantee that a run file asks for. It names every key, so that none can be forgotten.
fn privacy_terms(asked: &PrivacyChoice) -> Result<Privacy, PrivacyError> {
    let PrivacyChoice { ref unit, epsilon, delta, clip, noise_multiplier, sampling_rate, clip_quantile, warm_up_clip } =
        *asked;
    Privacy::new(unit, Terms { epsilon, delta, clip, noise_multiplier, sampling_rate, clip_quantile, warm_up_clip })
}

/// The round policy; with privacy nobody measures on data that are not public.
fn policy(file: &RunFile) -> Policy {
    let policy = Policy::of(&file.rounds, file.privacy.is_some());
    match &file.privacy {
        Some(_) if file.evaluation.is_none() => Policy { eval_every: 0, ..policy },
        _ => policy,
    }
}

fn evaluator(choice: &EvaluationChoice) -> Result<Evaluator, RunFileError> {
    let client = ClientId::new(choice.client.as_str())
        .map_err(|error| RunFileError::Value { key: "evaluation.client", problem: error.to_string() })?;
    Ok(Evaluator { client, dataset: choice.dataset.clone() })
}

impl Engine {
    pub(crate) fn create_run(
        &mut self,
        run: RunId,
        text: String,
        base: v1::BaseModel,
        start_adapter: Option<v1::InitialAdapter>,
        key: CohortKey,
        changes: &mut Changes,
    ) -> Result<PendingReply, Rejection> {
        if self.state.runs.contains_key(&run) {
            return Err(Rejection::RunExists { run });
        }
        let (spec, job) = specify(text, base, start_adapter, key, changes.now, &self.registry)?;
        if let Some(Evaluator { client, .. }) = &spec.evaluator {
            let known = self.state.clients.get(client).filter(|known| known.status != ClientStatus::Revoked);
            known.ok_or_else(|| Rejection::UnknownEvaluator { client: client.clone() })?;
        }
        let (round, kind) = if job.needs_warm_up() { (0, RoundKind::WarmUp) } else { (1, RoundKind::Train) };
        let start =
            spec.start_adapter.as_ref().map(|adapter| format!(" and adapter {}", adapter.digest)).unwrap_or_default();
        let line = format!(
            "created: {} of base {}{start} on data set {}, {} rounds, {}",
            spec.method,
            spec.base.name,
            spec.dataset,
            spec.policy.rounds,
            spec.privacy.statement()
        );
        let open = OpenRound::new(round, kind);
        let phase = Phase::Recruiting(Recruiting::default());
        let live = Live { phase, paused_at: None, open, next_event: 1, charged: None, clip: None };
        let record =
            Run { spec, live, members: Default::default(), rounds: Default::default(), events: Default::default() };
        let prediction = record.spec.central.as_ref().map(|central| guarantee::prediction(&central.plan, &job));
        self.state.runs.insert(run.clone(), record);
        self.jobs.insert(run.clone(), job);
        changes.records.insert(RecordKey::Spec(run.clone()));
        let mut ctx = self.open_run(&run, changes)?;
        ctx.announce(None, line);
        if let Some(prediction) = prediction {
            ctx.announce(None, prediction.clone());
            ctx.note(prediction);
        }
        Ok(PendingReply::Run(run))
    }

    pub(crate) fn pause(&mut self, run: RunId, changes: &mut Changes) -> Result<PendingReply, Rejection> {
        let mut ctx = self.open_run(&run, changes)?;
        if ctx.run().live.paused_at.is_none() {
            let now = ctx.now();
            ctx.live().paused_at = Some(now);
            ctx.announce(None, "paused");
        }
        Ok(PendingReply::Run(run))
    }

    pub(crate) fn unpause(&mut self, run: RunId, changes: &mut Changes) -> Result<PendingReply, Rejection> {
        let mut ctx = self.open_run(&run, changes)?;
        if let Some(since) = ctx.run().live.paused_at {
            let pause = ctx.now().saturating_sub(since).max(0);
            let live = ctx.live();
            live.paused_at = None;
            live.phase.shift(pause);
            ctx.announce(None, "resumed");
        }
        Ok(PendingReply::Run(run))
    }

    pub(crate) fn cancel(&mut self, run: RunId, changes: &mut Changes) -> Result<PendingReply, Rejection> {
        let known = self.state.runs.get(&run).ok_or_else(|| Rejection::UnknownRun { run: run.clone() })?;
        if let Phase::Ended(ended) = &known.live.phase
            && ended.outcome == Outcome::Cancelled
        {
            return Ok(PendingReply::Run(run));
        }
        let mut ctx = self.open_run(&run, changes)?;
        // What is published stays published: its round closes first.
        publishing::close(&mut ctx);
        ended::end(&mut ctx, Outcome::Cancelled);
        self.forget_job_if_ended(&run);
        Ok(PendingReply::Run(run))
    }
}
