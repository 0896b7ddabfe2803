//! One assignment from its first byte to its report.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rondo_methods::{AdapterState, Instance, Job, Kind, MethodError};
use rondo_proto::error::ErrorCode;
use rondo_proto::{Digest, RunId, v1};
use tokio::task::spawn_blocking;

use crate::api::{Api, ApiError, Retry};
use crate::spool::{Charge, Entry, Facts, Key};
use crate::worker::{Outcome, Task};
use rondo_trainer_api::work::{LocalUpdate, Work, WorkError};

use super::beat::{self, Beat};
use super::failure::Failure;
use super::judge::Agreed;
use super::{Daemon, REPORT_WITHIN, promise, stop_point, transfer};

/// Whether an update that the coordinator refused can be dropped. One that has a cost and only came
/// too late for its attempt may serve the next.
pub(super) fn is_useless(entry: &Entry, error: &ApiError) -> bool {
    error.is_final() && (!entry.facts.charge.is_some() || error.code == ErrorCode::InvalidArgument)
}

/// What an assignment's upload is known by.
pub(super) fn key(assignment: &v1::Assignment) -> Result<Key, Failure> {
    let run = RunId::new(assignment.run.as_str())?;
    Ok(Key { run, round: assignment.round, attempt: assignment.attempt })
}

fn task(assignment: &v1::Assignment) -> Result<Task, Failure> {
    match assignment.kind() {
        v1::WorkKind::WarmUp => Ok(Task::WarmUp),
        v1::WorkKind::Train => Ok(Task::Train),
        v1::WorkKind::Evaluate => Ok(Task::Evaluate),
        v1::WorkKind::Unspecified => {
            let problem = format!("work of kind {} is not known to this version of the client", assignment.kind);
            Err(Failure::NotAgreed(problem))
        }
    }
}

impl<A: Api> Daemon<A> {
    /// Does an assignment and reports when it cannot be done.
    pub(super) async fn assignment(&mut self, assignment: v1::Assignment) {
        let v1::Assignment { run, round, attempt, .. } = &assignment;
        let (key, task) = match (key(&assignment), task(&assignment)) {
            (Ok(key), Ok(task)) => (key, task),
            (Err(failure), _) | (_, Err(failure)) => {
                tracing::error!(run, round, error = %failure, "an assignment makes no sense");
                self.report_failure(&assignment, failure.for_coordinator()).await;
                return self.idle(0).await;
            }
        };
        // The coordinator may not have taken notice yet.
        if let Some((last_key, last_task, failed)) = &self.last
            && (last_key, *last_task) == (&key, task)
        {
            let failed = failed.clone();
            self.idle(0).await;
            // A finished update that only failed to arrive is sent again.
            if let Some(reason) = failed
                && !(task != Task::Evaluate && self.is_spooled(&key).await)
            {
                return self.report_failure(&assignment, reason).await;
            }
        }
        tracing::info!(run, round, attempt, ?task, "assignment");
        let beat = Arc::new(Beat::new(task));
        let every = Duration::from_millis(self.config.poll.heartbeat_ms);
        let beats = beat::until_stopped(Arc::clone(&self.api), &assignment, Arc::clone(&beat), every);
        let done = tokio::select! {
            done = self.carry_out(&assignment, &key, task, &beat) => done,
            reason = beats => Err(Failure::Stopped(reason)),
        };
        let failed = match done {
            Ok(()) => {
                tracing::info!(run, round, attempt, ?task, "done");
                None
            }
            Err(failure @ (Failure::Stopped(_) | Failure::Work(WorkError::Interrupted))) => {
                tracing::info!(run, round, attempt, ?task, reason = %failure, "given up");
                None
            }
            // A coordinator that refused the result need not be told. Asked again for an update
            // that it refused, the client says that it has no other.
            Err(Failure::Api(error)) if error.is_final() && error.call != "download" => {
                tracing::error!(run, round, attempt, ?task, %error, "refused by the coordinator");
                self.idle(0).await;
                error.call.starts_with("upload").then_some(error.message)
            }
            Err(failure) => {
                tracing::error!(run, round, attempt, ?task, error = %failure, "failed");
                let reason = failure.for_coordinator();
                self.report_failure(&assignment, reason.clone()).await;
                if failure.ends_the_run_here() {
                    self.leave(run, reason.clone()).await;
                }
                Some(reason)
            }
        };
        self.last = Some((key, task, failed));
    }

    async fn carry_out(&self, assignment: &v1::Assignment, key: &Key, task: Task, beat: &Beat) -> Result<(), Failure> {
        if task != Task::Evaluate
            && let Some(entry) = self.spooled(key).await?
        {
            tracing::info!(%key, "the update is in the spool already");
            return self.deliver(entry, beat).await;
        }
        let (judge, judged) = (Arc::clone(&self.judge), assignment.clone());
        let agreed =
            spawn_blocking(move || judge.lock().unwrap_or_else(PoisonError::into_inner).assigned(&judged)).await??;
        let measures = agreed.run.evaluation.as_ref().filter(|_| !assignment.dataset.is_empty());
        if let Some(named) = measures.filter(|named| task != Task::Evaluate || named.client != self.client) {
            let problem = format!("run {} names client {:?} to measure on {:?}", key.run, named.client, named.dataset);
            return Err(Failure::NotAgreed(problem));
        }
        // Whoever measures alone, on public data, is no part of the promise.
        if agreed.run.privacy.is_none() || !assignment.dataset.is_empty() {
            return self.work_on(assignment, key, task, &agreed, beat).await;
        }
        promise::refuse_measuring(assignment, task, &agreed)?;
        beat.keep_losses();
        self.work_on(assignment, key, task, &agreed, beat).await.map_err(Failure::of_private_run)
    }

    async fn work_on(
        &self,
        assignment: &v1::Assignment,
        key: &Key,
        task: Task,
        agreed: &Agreed,
        beat: &Beat,
    ) -> Result<(), Failure> {
        let published = assignment.state.as_ref().map_or(0, |state| state.published.len());
        if agreed.privacy.is_some() && promise::is_private(task, agreed) {
            if let Some(entry) = self.made_before(key, published).await? {
                tracing::info!(%key, from = %entry.key, "the update of an earlier attempt is sent again");
                let entry = self.spool.readdress(&entry, key)?;
                return self.deliver(entry, beat).await;
            }
            self.guard.check(&key.run, key.round)?;
        }
        let (job, state) = self.state(assignment, &key.run, task, agreed).await?;

        let limit = self.config.limits.max_eval_examples as usize;
        let work = Work {
            job,
            run: Arc::clone(&agreed.run),
            base: Arc::clone(&agreed.base),
            model_dir: agreed.model_dir.clone(),
            data: Arc::clone(&agreed.data),
            client: self.client.clone(),
            round: assignment.round,
            rank: agreed.rank as usize,
            state,
            protection: promise::protection(assignment, task, agreed)?,
            evaluate_before: assignment.evaluate_before,
            max_eval_examples: (limit > 0).then_some(limit),
        };
        let in_hand = self.worker.give(task, work);
        beat.follow(in_hand.progress());
        match in_hand.outcome().await? {
            Outcome::Evaluation(evaluation) => {
                let (loss, accuracy) = (evaluation.loss, evaluation.accuracy);
                let report = v1::EvaluationReport {
                    run: assignment.run.clone(),
                    round: assignment.round,
                    evaluation: Some(evaluation),
                };
                beat.reporting();
                tracing::info!(run = %key.run, round = key.round, loss, accuracy, "evaluated");
                Ok(self.retry.call(|| self.api.report_evaluation(report.clone())).await?)
            }
            Outcome::Update(update) => {
                let entry = self.spool_update(key, task, agreed, published, update).await?;
                self.deliver(entry, beat).await
            }
        }
    }

    /// An update of an earlier attempt at the same round, from the same state: to send it costs at
    /// most once, to make another would cost again.
    async fn made_before(&self, key: &Key, published: usize) -> Result<Option<Entry>, Failure> {
        let spool = Arc::clone(&self.spool);
        let entries = spawn_blocking(move || spool.list()).await??;
        let version = u32::try_from(published).unwrap_or(u32::MAX);
        Ok(entries.into_iter().rfind(|entry| {
            (&entry.key.run, entry.key.round) == (&key.run, key.round)
                && entry.facts.base_version == version
                && entry.facts.charge.is_some()
        }))
    }

    /// Enters an update that has yet to be paid for into the
    /// ledger. Only what comes out of here may leave.
    pub(super) async fn release(&self, entry: Entry) -> Result<Entry, Failure> {
        if entry.facts.charge != Charge::Due {
            return Ok(entry);
        }
        let (guard, spool) = (self.guard.clone(), Arc::clone(&self.spool));
        spawn_blocking(move || -> Result<Entry, Failure> {
            stop_point::reached("spooled");
            let report = guard.release(&entry)?;
            stop_point::reached("entered");
            let v1::PrivacyReport { epsilon, total_steps, .. } = report;
            tracing::info!(key = %entry.key, epsilon, total_steps, "release entered into the ledger");
            let paid = spool.mark_paid(entry, report)?;
            stop_point::reached("paid");
            Ok(paid)
        })
        .await?
    }

    /// Fetches what the state needs and builds it; with it comes the
    /// run as it starts from its adapter, if it does.
    async fn state(
        &self,
        assignment: &v1::Assignment,
        run: &RunId,
        task: Task,
        agreed: &Agreed,
    ) -> Result<(Job, AdapterState), Failure> {
        let described = assignment.state.clone().unwrap_or_default();
        let read = |text: &str| {
            text.parse::<Digest>().map_err(|error| Failure::NotAgreed(format!("the state of run {run}: {error}")))
        };
        let some = |text: &str| if text.is_empty() { Ok(None) } else { read(text).map(Some) };
        let (initial, frozen) = (some(&described.initial_digest)?, some(&described.frozen_digest)?);
        let published =
            described.published.iter().map(|published| read(&published.digest)).collect::<Result<Vec<_>, _>>()?;
        let needed = initial.iter().chain(&frozen).chain(&published).copied();
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).keep(run, needed)?;
        let initial = self.fetch(assignment, initial).await?.pop();
        let frozen = self.fetch(assignment, frozen).await?.pop();
        let published = self.fetch(assignment, published).await?;
        let (job, client, rank) = (agreed.job.clone(), self.client.clone(), agreed.rank as usize);
        let round = assignment.round;
        let build = move || {
            let job = match initial {
                Some(path) => job.starting_from(&path)?,
                None => job,
            };
            let state = match task {
                Task::WarmUp => job.warm_up_state(rank)?,
                Task::Train | Task::Evaluate => job.state(round, &client, rank, frozen.as_deref(), &published)?,
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

    /// Checks what the trainer made and puts it into the spool.
    async fn spool_update(
        &self,
        key: &Key,
        task: Task,
        agreed: &Agreed,
        base_version: usize,
        update: LocalUpdate,
    ) -> Result<Entry, Failure> {
        let update = if agreed.run.privacy.is_some() { promise::told_nothing(update) } else { update };
        let LocalUpdate { tensors, examples, train_loss, seconds, before } = update;
        let kind = if task == Task::WarmUp { Kind::WarmUp } else { Kind::Train };
        let unfit = tensors.iter().find(|(_, tensor)| tensor.data.iter().any(|number| !number.is_finite()));
        if unfit.is_some() || !train_loss.is_finite() {
            let what = unfit.map_or("the training loss".to_owned(), |(name, _)| format!("tensor {name}"));
            return Err(WorkError::NotFinite { round: key.round, step: agreed.run.train.local_steps, what }.into());
        }
        let facts = Facts {
            examples,
            train_loss,
            train_seconds: seconds,
            rank: agreed.rank,
            base_version: u32::try_from(base_version).unwrap_or(u32::MAX),
            before,
            charge: if agreed.privacy.is_some() && promise::is_private(task, agreed) {
                Charge::Due
            } else {
                Charge::None
            },
        };
        tracing::info!(%key, examples, train_loss, seconds, "trained");
        let (spool, key) = (Arc::clone(&self.spool), key.clone());
        let (job, round, rank) = (agreed.job.clone(), key.round, agreed.rank as usize);
        let client = self.client.clone();
        let write = move |path: &Path| {
            let instance = Instance::in_round(round).with_rank(rank).of_client(&client);
            job.write_update(kind, instance, &tensors, path)
        };
        Ok(spawn_blocking(move || spool.put(&key, &facts, &write)).await??)
    }

    /// The finished update under a key, when there is one.
    async fn spooled(&self, key: &Key) -> Result<Option<Entry>, Failure> {
        let (spool, key) = (Arc::clone(&self.spool), key.clone());
        Ok(spawn_blocking(move || spool.find(&key)).await??)
    }

    async fn is_spooled(&self, key: &Key) -> bool {
        self.spooled(key).await.is_ok_and(|entry| entry.is_some())
    }

    /// Uploads an entry; it stays in the spool, marked,
    /// until the coordinator turns to something else.
    async fn deliver(&self, entry: Entry, beat: &Beat) -> Result<(), Failure> {
        let entry = self.release(entry).await?;
        beat.uploading();
        match transfer::upload(self.api.as_ref(), &self.retry, &entry).await {
            Ok(()) => Ok(self.spool.mark_accepted(&entry)?),
            Err(error) => {
                if is_useless(&entry, &error) {
                    self.spool.remove(&entry.key)?;
                }
                Err(error.into())
            }
        }
    }

    /// Takes back that this client takes part in a run.
    async fn leave(&self, run: &str, reason: String) {
        let answer = v1::AnswerRequest { run: run.to_owned(), accept: false, reason, ..v1::AnswerRequest::default() };
        let retry = Retry { within: Some(REPORT_WITHIN), ..self.retry.clone() };
        if let Err(error) = retry.call(|| self.api.answer(answer.clone())).await {
            tracing::error!(run, %error, "the coordinator was not told that this client leaves the run");
        }
    }

    async fn report_failure(&self, assignment: &v1::Assignment, reason: String) {
        let report = v1::FailureReport {
            run: assignment.run.clone(),
            round: assignment.round,
            attempt: assignment.attempt,
            reason,
        };
        let retry = Retry { within: Some(REPORT_WITHIN), ..self.retry.clone() };
        if let Err(error) = retry.call(|| self.api.report_failure(report.clone())).await {
            tracing::error!(run = assignment.run, round = assignment.round, %error, "the failure was not reported");
        }
    }
}
