//! One assignment from its first byte to its report.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rondo_methods::{AdapterState, Job, MethodError};
use rondo_proto::{Digest, RunId, v1};
use rondo_trainer_api::work::{Work, WorkError};
use tokio::task::spawn_blocking;

use super::accepted_run::AcceptedRun;
use super::disclosure::Disclosure;
use super::failure::Failure;
use super::heartbeat::{self, HeartbeatState};
use super::{Daemon, privacy_terms, transfer};
use crate::api::Api;
use crate::spool::Key;
use crate::worker::{Activity, Outcome};

/// What an assignment's upload is known by.
pub(super) fn key_of(assignment: &v1::Assignment) -> Result<Key, Failure> {
    let run = RunId::new(assignment.run.as_str())?;
    Ok(Key { run, round: assignment.round, attempt: assignment.attempt })
}

/// What an assignment asks for. The ledger charges by the round: a warm-up (round 0) costs one step,
/// and training costs all steps of a round. So neither passes for the other.
fn activity_of(assignment: &v1::Assignment) -> Result<Activity, Failure> {
    match (assignment.kind(), assignment.round) {
        (v1::WorkKind::WarmUp, 0) => Ok(Activity::WarmUp),
        (v1::WorkKind::Train, 1..) => Ok(Activity::Train),
        (v1::WorkKind::Evaluate, _) => Ok(Activity::Evaluate),
        (v1::WorkKind::WarmUp | v1::WorkKind::Train, round) => {
            let kind = assignment.kind().as_str_name();
            let problem =
                format!("work of kind {kind} in round {round}: a warm-up is round 0, training comes after it");
            Err(Failure::NotAgreed(problem))
        }
        (v1::WorkKind::Unspecified, _) => {
            let problem = format!("work of kind {} is not known to this version of the client", assignment.kind);
            Err(Failure::NotAgreed(problem))
        }
    }
}

impl<A: Api> Daemon<A> {
    /// Does an assignment and reports when it cannot be done.
    pub(super) async fn assignment(&mut self, assignment: v1::Assignment) {
        let v1::Assignment { run, round, attempt, .. } = &assignment;
        let (key, activity) = match (key_of(&assignment), activity_of(&assignment)) {
            (Ok(key), Ok(activity)) => (key, activity),
            (Err(failure), _) | (_, Err(failure)) => {
                tracing::error!(run, round, error = %failure, "an assignment makes no sense");
                self.report_failure(&assignment, failure.for_coordinator()).await;
                return self.idle(0).await;
            }
        };
        // The coordinator may not have taken notice yet.
        if let Some((last_key, last_activity, failed)) = &self.last
            && (last_key, *last_activity) == (&key, activity)
        {
            let failed = failed.clone();
            self.idle(0).await;
            // A finished update that only failed to arrive is sent again.
            if let Some(reason) = failed
                && !(activity != Activity::Evaluate && self.is_spooled(&key).await)
            {
                return self.report_failure(&assignment, reason).await;
            }
        }
        tracing::info!(run, round, attempt, ?activity, "assignment");
        let heartbeat = Arc::new(HeartbeatState::new(activity, self.disclosure));
        let every = Duration::from_millis(self.config.poll.heartbeat_ms);
        let stopped = heartbeat::until_stopped(Arc::clone(&self.api), &assignment, Arc::clone(&heartbeat), every);
        let done = tokio::select! {
            done = self.carry_out(&assignment, &key, activity, &heartbeat) => done,
            reason = stopped => Err(Failure::Stopped(reason)),
        };
        let failed = match done {
            Ok(()) => {
                tracing::info!(run, round, attempt, ?activity, "done");
                None
            }
            Err(failure @ (Failure::Stopped(_) | Failure::Work(WorkError::Interrupted))) => {
                tracing::info!(run, round, attempt, ?activity, reason = %failure, "given up");
                None
            }
            // A coordinator that refused the result knows of it. Asked again for an update that it
            // refused, the client says that it has no other.
            Err(Failure::Api(error)) if error.is_final() && error.call != "download" => {
                tracing::error!(run, round, attempt, ?activity, %error, "refused by the coordinator");
                self.idle(0).await;
                error.call.starts_with("upload").then_some(error.message)
            }
            Err(failure) => {
                tracing::error!(run, round, attempt, ?activity, error = %failure, "failed");
                let reason = failure.for_coordinator();
                self.report_failure(&assignment, reason.clone()).await;
                if failure.ends_the_run_here() {
                    self.leave(run, reason.clone()).await;
                }
                Some(reason)
            }
        };
        self.last = Some((key, activity, failed));
    }

    async fn carry_out(
        &self,
        assignment: &v1::Assignment,
        key: &Key,
        activity: Activity,
        heartbeat: &HeartbeatState,
    ) -> Result<(), Failure> {
        if activity != Activity::Evaluate
            && let Some(entry) = self.spooled(key).await?
        {
            tracing::info!(%key, "the update is in the spool already");
            return self.deliver(entry, heartbeat).await;
        }
        if activity == Activity::Evaluate && !self.disclosure.reports_metrics() {
            tracing::info!(run = %key.run, round = key.round, "nothing is measured: client.toml has report_metrics = false");
            return self.send_failure(Disclosure::nothing_measured(assignment)).await;
        }
        let admission = Arc::clone(&self.admission);
        let described = assignment.clone();
        let accepted =
            spawn_blocking(move || admission.lock().unwrap_or_else(PoisonError::into_inner).accepted_run(&described))
                .await??;
        let measures = accepted.run.evaluation.as_ref().filter(|_| !assignment.dataset.is_empty());
        if let Some(named) = measures.filter(|named| activity != Activity::Evaluate || named.client != self.client) {
            let problem = format!("run {} names client {:?} to measure on {:?}", key.run, named.client, named.dataset);
            return Err(Failure::NotAgreed(problem));
        }
        // A client that only measures, on public data, is not bound by the privacy terms.
        if accepted.run.privacy.is_none() || !assignment.dataset.is_empty() {
            return self.work(assignment, key, activity, &accepted, heartbeat).await;
        }
        privacy_terms::refuse_measuring(assignment, activity, &accepted)?;
        heartbeat.withhold_losses();
        self.work(assignment, key, activity, &accepted, heartbeat).await.map_err(Failure::of_private_run)
    }

    async fn work(
        &self,
        assignment: &v1::Assignment,
        key: &Key,
        activity: Activity,
        accepted: &AcceptedRun,
        heartbeat: &HeartbeatState,
    ) -> Result<(), Failure> {
        let published = assignment.state.as_ref().map_or(0, |state| state.published.len());
        if accepted.privacy.is_some() && privacy_terms::is_private(activity, accepted) {
            if let Some(entry) = self.made_before(key, published).await? {
                tracing::info!(%key, from = %entry.key, "the update of an earlier attempt is sent again");
                let entry = self.spool.readdress(&entry, key)?;
                return self.deliver(entry, heartbeat).await;
            }
            self.guard.check(&key.run, key.round)?;
        }
        let (job, state) = self.state(assignment, &key.run, activity, accepted).await?;

        let limit = self.config.limits.max_eval_examples as usize;
        let work = Work {
            job,
            run: Arc::clone(&accepted.run),
            base: Arc::clone(&accepted.base),
            model_dir: accepted.model_dir.clone(),
            data: Arc::clone(&accepted.data),
            client: self.client.clone(),
            round: assignment.round,
            rank: accepted.rank as usize,
            state,
            protection: privacy_terms::protection(assignment, activity, accepted)?,
            evaluate_before: assignment.evaluate_before && self.disclosure.reports_metrics(),
            max_eval_examples: (limit > 0).then_some(limit),
        };
        let handle = self.worker.submit(activity, work);
        heartbeat.follow(handle.progress());
        match handle.outcome().await? {
            Outcome::Evaluation(evaluation) => {
                let v1::Evaluation { loss, accuracy, .. } = evaluation;
                heartbeat.reporting();
                tracing::info!(run = %key.run, round = key.round, loss, accuracy, "evaluated");
                match self.disclosure.evaluation_report(assignment, evaluation, accepted.run.task.kind) {
                    Some(report) => self.send_evaluation(report).await,
                    None => self.send_failure(Disclosure::nothing_measured(assignment)).await,
                }
            }
            Outcome::Update(update) => {
                let entry = self.spool_update(key, activity, accepted, published, update).await?;
                self.deliver(entry, heartbeat).await
            }
        }
    }

    /// Fetches what the adapter's state needs and builds it. The job that is returned starts from
    /// the run's start adapter, where there is one.
    async fn state(
        &self,
        assignment: &v1::Assignment,
        run: &RunId,
        activity: Activity,
        accepted: &AcceptedRun,
    ) -> Result<(Job, AdapterState), Failure> {
        let described = assignment.state.clone().unwrap_or_default();
        let read = |text: &str| {
            text.parse::<Digest>().map_err(|error| Failure::NotAgreed(format!("the state of run {run}: {error}")))
        };
        let some = |text: &str| if text.is_empty() { Ok(None) } else { read(text).map(Some) };
        let initial = some(&described.initial_digest)?;
        let frozen = some(&described.frozen_digest)?;
        let published =
            described.published.iter().map(|published| read(&published.digest)).collect::<Result<Vec<_>, _>>()?;
        let needed = initial.iter().chain(&frozen).chain(&published).copied();
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).keep(run, needed)?;
        let initial = self.fetch(assignment, initial).await?.pop();
        let frozen = self.fetch(assignment, frozen).await?.pop();
        let published = self.fetch(assignment, published).await?;
        let job = accepted.job.clone();
        let client = self.client.clone();
        let rank = accepted.rank as usize;
        let round = assignment.round;
        let build = move || {
            let job = match initial {
                Some(path) => job.starting_from(&path)?,
                None => job,
            };
            let state = match activity {
                Activity::WarmUp => job.warm_up_state(rank)?,
                Activity::Train | Activity::Evaluate => {
                    job.state(round, &client, rank, frozen.as_deref(), &published)?
                }
            };
            Ok::<_, MethodError>((job, state))
        };
        Ok(spawn_blocking(build).await??)
    }

    /// The files of these blobs.
    async fn fetch(
        &self,
        assignment: &v1::Assignment,
        digests: impl IntoIterator<Item = Digest>,
    ) -> Result<Vec<PathBuf>, Failure> {
        let mut paths = Vec::new();
        for digest in digests {
            paths.push(transfer::fetch(self.api.as_ref(), &self.retry, &self.cache, &assignment.run, digest).await?);
        }
        Ok(paths)
    }

    /// Takes back that this client takes part in a run.
    async fn leave(&self, run: &str, reason: String) {
        let answer = v1::AnswerRequest { run: run.to_owned(), accept: false, reason, ..v1::AnswerRequest::default() };
        if let Err(error) = self.send_answer(answer).await {
            tracing::error!(run, %error, "the coordinator does not know that this client leaves the run");
        }
    }

    async fn report_failure(&self, assignment: &v1::Assignment, reason: String) {
        let report = v1::FailureReport {
            run: assignment.run.clone(),
            round: assignment.round,
            attempt: assignment.attempt,
            reason,
            metrics_withheld: false,
        };
        if let Err(error) = self.send_failure(report).await {
            tracing::error!(run = assignment.run, round = assignment.round, %error, "the failure was not reported");
        }
    }
}
