//! Decides on invitations and assignments: which runs this client takes part in, and whether work
//! that it is given belongs to a run that it accepted. This file does no network calls.

use std::sync::Arc;
use std::time::SystemTime;

use rondo_data::{DataError, Dataset, OnBadRow, Source, TaskSpec};
use rondo_methods::{Job, Registry};
use rondo_proto::clock::unix_millis;
use rondo_proto::run_file::{PrivacyChoice, RunFile, Task};
use rondo_proto::{Digest, RunId, v1};
use rondo_trainer_api::memory::{self, ModelSizes, Workload};

use super::accepted_run::AcceptedRun;
use super::approval::RunApproval;
use super::failure::Failure;
use super::privacy_guard::PrivacyGuard;
use super::privacy_terms;
use crate::answers::{Answer, Answers};
use crate::config::Config;
use crate::models::Models;
use crate::policy;
use crate::terms::{Standing, Terms};

/// A data set that was read, and what it was read from.
struct LoadedDataset {
    source: Source,
    task: Task,
    stamp: (u64, Option<SystemTime>),
    data: Arc<Dataset>,
}

/// Decides on runs by what this machine has and by client.toml.
pub struct Admission {
    config: Arc<Config>,
    registry: Arc<Registry>,
    models: Models,
    answers: Answers,
    guard: PrivacyGuard,
    approval: RunApproval,
    /// The latest data set; rounds follow one another with the same.
    loaded: Option<LoadedDataset>,
}

impl Admission {
    /// Decides by a configuration, the known methods, the models and answers on this machine, and
    /// what people here said.
    pub fn new(
        config: Arc<Config>,
        registry: Arc<Registry>,
        models: Models,
        answers: Answers,
        guard: PrivacyGuard,
        approval: RunApproval,
    ) -> Self {
        Self { config, registry, models, answers, guard, approval, loaded: None }
    }

    /// What a poll says of this client.
    pub fn introduction(&self) -> v1::PollRequest {
        v1::PollRequest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            datasets: self.config.datasets.iter().map(|source| source.name.clone()).collect(),
            bases: self.models.digests(),
            max_rank: self.config.limits.max_rank,
            reserved_runs: self.guard.open_runs(),
            tokens: self.models.tokens(),
        }
    }

    /// Answers an invitation. The answer is on the disk before this returns.
    pub fn answer(&mut self, invitation: &v1::Invitation) -> v1::AnswerRequest {
        let v1::Invitation { run, run_file, base, initial } = invitation;
        let decision = RunId::new(run.as_str()).map_err(Failure::from).and_then(|id| {
            let accepted = self.check_text(&id, run_file, base.as_ref(), initial.as_ref(), "");
            // Nobody has answered yet, so there is nothing to stand by.
            if let Err(undecided @ Failure::Undecided) = accepted {
                return Err(undecided);
            }
            let takes_part = self.answers.get(&id).is_some_and(|answer| answer.declined.is_none());
            if accepted.is_err() && !takes_part {
                self.approval.declined(&id);
            }
            let (rank, declined) = match &accepted {
                Ok(accepted) => (accepted.rank, None),
                Err(failure) => (0, Some(failure.for_coordinator())),
            };
            let base = base.as_ref().map(|base| base.digest.clone()).unwrap_or_default();
            // An answer to another text under the same id stands: the id means the text that was
            // answered first.
            if self.answers.get(&id).is_none_or(|before| before.run_file == Digest::of(run_file.as_bytes())) {
                let initial = digest_of(initial.as_ref()).to_owned();
                let answer =
                    Answer { run: id, run_file: Digest::of(run_file.as_bytes()), base, initial, rank, declined };
                self.answers.put(answer).map_err(|error| {
                    Failure::NotAgreed(format!("this client cannot note its answer: {}", error.kind()))
                })?;
            }
            accepted
        });
        match decision {
            Ok(accepted) => {
                let method = &accepted.run.method.id;
                let dataset = &accepted.run.task.dataset;
                tracing::info!(run, method, dataset, rank = accepted.rank, "run accepted");
                let rank = accepted.rank;
                v1::AnswerRequest { run: run.clone(), accept: true, rank, ..v1::AnswerRequest::default() }
            }
            Err(failure @ Failure::Undecided) => v1::AnswerRequest {
                run: run.clone(),
                undecided: true,
                reason: failure.for_coordinator(),
                ..v1::AnswerRequest::default()
            },
            Err(failure) => {
                tracing::warn!(run, reason = %failure, "run declined");
                let reason = failure.for_coordinator();
                v1::AnswerRequest { run: run.clone(), reason, ..v1::AnswerRequest::default() }
            }
        }
    }

    /// Checks that an assignment belongs to a run as this client accepted it, and checks the run
    /// again by what this machine has now.
    ///
    /// # Errors
    /// The run's id or file is not valid, or the assignment is not what this client agreed to. The
    /// policy, the data, the model, the memory or the privacy budget of this client may refuse it,
    /// too.
    pub fn accepted_run(&mut self, assignment: &v1::Assignment) -> Result<AcceptedRun, Failure> {
        let run = RunId::new(assignment.run.as_str())?;
        let declined = self.answers.get(&run).and_then(|answer| answer.declined.clone());
        if let Some(reason) = declined {
            return Err(Failure::NotAgreed(format!("this client declined run {run}: {reason}")));
        }
        let initial = assignment.initial.as_ref();
        let state = assignment.state.as_ref().map_or("", |state| state.initial_digest.as_str());
        if state != digest_of(initial) {
            let problem =
                format!("the state of run {run} stands on {state:?}, the run starts from {:?}", digest_of(initial));
            return Err(Failure::NotAgreed(problem));
        }
        let accepted =
            self.check_text(&run, &assignment.run_file, assignment.base.as_ref(), initial, &assignment.dataset)?;
        let most = self.answers.get(&run).map_or(accepted.rank, |answer| answer.rank);
        // A client that only measures takes the whole adapter; a limit on ranks is about training.
        if assignment.rank > most && assignment.dataset.is_empty() {
            let problem = format!("the assignment has rank {}, this client offered {most}", assignment.rank);
            return Err(Failure::NotAgreed(problem));
        }
        let rank = if assignment.rank == 0 { most } else { assignment.rank };
        Ok(AcceptedRun { rank, ..accepted })
    }

    /// Checks a run by its text. `measured` names the data set that this
    /// client alone measures on, the whole of it; it is empty when the client
    /// trains, or measures on its own held-out examples.
    fn check_text(
        &mut self,
        id: &RunId,
        text: &str,
        base: Option<&v1::BaseModel>,
        initial: Option<&v1::InitialAdapter>,
        measured: &str,
    ) -> Result<AcceptedRun, Failure> {
        let refuse = |problem: String| Err(Failure::NotAgreed(problem));
        let Some(base) = base else {
            return refuse(format!("run {id} comes without a description of its base model"));
        };
        if let Some(answer) = self.answers.get(id) {
            if answer.run_file != Digest::of(text.as_bytes()) {
                return refuse(format!("the run file of {id} is not the one that this client answered to"));
            }
            if answer.base != base.digest {
                let now = &base.digest;
                let then = &answer.base;
                return refuse(format!("run {id} now names base {now}; this client answered to {then}"));
            }
            if answer.initial != digest_of(initial) {
                let now = digest_of(initial);
                let then = &answer.initial;
                return refuse(format!("run {id} now starts from adapter {now:?}; this client answered to {then:?}"));
            }
        }
        let run = RunFile::parse(text)?;
        let private = run.privacy.is_some() && measured.is_empty();
        let accepted = self.check_run(id, (text, run), base, initial, measured);
        if private { accepted.map_err(Failure::of_private_run) } else { accepted }
    }

    /// Checks a run that is known to be the one that was asked for.
    fn check_run(
        &mut self,
        id: &RunId,
        (text, run): (&str, RunFile),
        base: &v1::BaseModel,
        initial: Option<&v1::InitialAdapter>,
        measured: &str,
    ) -> Result<AcceptedRun, Failure> {
        let refuse = |problem: String| Err(Failure::NotAgreed(problem));
        if run.base.digest.is_some_and(|digest| digest.to_string() != base.digest) {
            return refuse(format!("the run file of {id} names another base than {}", base.digest));
        }
        // Cheap checks first, so that a run that is not for this client costs nothing.
        let measures = !measured.is_empty();
        if measures && run.evaluation.as_ref().is_none_or(|evaluation| evaluation.dataset != measured) {
            return refuse(format!("run {id} does not say that it is measured on data set {measured:?}"));
        }
        let name = if measures { measured } else { run.task.dataset.as_str() };
        let Some(source) = self.config.dataset(name).cloned() else {
            let known = self.config.datasets.iter().map(|source| source.name.clone()).collect();
            return Err(Failure::NoDataset { name: name.to_owned(), known });
        };
        let private = run.privacy.is_some();
        self.guard.check_dataset(&run, &source, measures)?;
        let source = match (measures, private) {
            (true, _) => Source { eval_fraction: 1.0, ..source },
            (false, true) => Source { on_bad_row: OnBadRow::Keep, ..source },
            (false, false) => source,
        };
        let job = Job::new(&self.registry, &run, base)?;
        if private {
            privacy_terms::refuse_warm_up(&run, &job)?;
        }
        // Whole updates that are summed under one clip have one shape.
        let mixed_ranks = job.mixed_ranks() && !run.privacy.as_ref().is_some_and(PrivacyChoice::is_per_client);
        let rank = policy::check(&self.config.policy, &self.config.limits, &run, mixed_ranks)?;
        let model_dir = self.models.find(base)?;
        let sizes = ModelSizes::read(&model_dir)?;
        let load = Workload::new(sizes, &run, &job, rank as usize).starting_from(initial, base, &job);
        let choice =
            memory::choose(&load, &self.config.limits, memory::machine::room()).map_err(policy::Decline::from)?;
        tracing::debug!(%id, peak = choice.estimate.peak, mode = ?choice.mode, "memory of a training step");
        let data = self.dataset(source.clone(), &run.task)?;
        if data.train().is_empty() && !measures {
            return Err(Failure::NothingToTrain { name: name.to_owned() });
        }
        // Where another client measures, or none does, this one needs no held-out rows.
        let measures_itself = run.rounds.eval_every > 0 && run.evaluation.is_none() && !private;
        if data.held_out().is_empty() && (measures || measures_itself) {
            return Err(Failure::NothingToEvaluate { name: name.to_owned() });
        }
        let terms = Terms {
            run: id.clone(),
            run_file: text.to_owned(),
            base: base.name.clone(),
            base_digest: base.digest.clone(),
            initial: digest_of(initial).to_owned(),
            dataset: name.to_owned(),
            train_rows: if measures { 0 } else { data.train().len() as u64 },
            held_out_rows: data.held_out().len() as u64,
            rank,
            asked_ms: unix_millis(),
            standing: Standing::Undecided,
        };
        let is_agreed = self.answers.get(id).is_some_and(|answer| answer.declined.is_none());
        self.approval.check(terms, is_agreed)?;
        // Last, since it sets something aside.
        let privacy = if measures { None } else { self.guard.reserve(id, &run, &source, data.train().len())? };
        Ok(AcceptedRun { job, run: Arc::new(run), base: Arc::new(base.clone()), model_dir, data, rank, privacy })
    }

    fn dataset(&mut self, source: Source, task: &Task) -> Result<Arc<Dataset>, Failure> {
        let failure = |error| Failure::Data { name: source.name.clone(), source: Box::new(error) };
        let about = std::fs::metadata(&source.path)
            .map_err(|error| failure(DataError::Io { file: source.path.clone(), source: error }))?;
        let stamp = (about.len(), about.modified().ok());
        if let Some(loaded) = &self.loaded
            && (loaded.stamp, &loaded.source) == (stamp, &source)
            && TaskSpec::of(&loaded.task) == TaskSpec::of(task)
        {
            return Ok(Arc::clone(&loaded.data));
        }
        // Two data sets are never held at the same time.
        self.loaded = None;
        let in_memory = self.config.limits.data_mb << 20;
        let data = Arc::new(Dataset::load(&source, TaskSpec::of(task), in_memory).map_err(failure)?);
        let train = data.train().len();
        let held_out = data.held_out().len();
        let skipped = data.skipped();
        let streamed = data.is_streamed();
        tracing::info!(dataset = source.name, train, held_out, skipped, streamed, "data set read");
        self.loaded = Some(LoadedDataset { source, task: task.clone(), stamp, data: Arc::clone(&data) });
        Ok(data)
    }
}

/// Digest of the adapter that a run starts from; empty without one.
fn digest_of(initial: Option<&v1::InitialAdapter>) -> &str {
    initial.map_or("", |initial| initial.digest.as_str())
}
