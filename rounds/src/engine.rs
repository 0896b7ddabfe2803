//! The engine: one input in, a reply, effects and changed records out. It knows no clock, no disk and no network.

use std::collections::{BTreeMap, BTreeSet};

use rondo_methods::{Job, Registry};
use rondo_proto::{ClientId, Digest, RunId};

use crate::Millis;
use crate::desk::{Desk, Turn};
use crate::effect::{Effect, Reply, Step};
use crate::input::Input;
use crate::invariants::{self, Violation};
use crate::phases::{self, Phase, aggregating};
use crate::presence::Presence;
use crate::record::{RecordKey, ResumeError, Snapshot};
use crate::rejection::Rejection;
use crate::state::{Client, Standing, State};

/// Decides everything that happens in every run.
///
/// The driver gives it one [`Input`] at a time ([`Engine::step`]), commits and flushes the changed records, and only
/// then answers and performs the effects. After a crash it builds the engine anew from the records
/// ([`Engine::resume`]), which gives the outstanding effects again.
#[derive(Debug)]
pub struct Engine {
    pub(crate) state: State,
    pub(crate) registry: Registry,
    /// Runs that have not ended, resolved against their base and method.
    pub(crate) jobs: BTreeMap<RunId, Job>,
    pub(crate) presence: Presence,
}

/// Where the answer to an input comes from, once the runs are settled.
pub(crate) enum Answering {
    /// It is known.
    With(Reply),
    /// The run as it then stands.
    Run(RunId),
    /// The client as it then stands.
    Client(ClientId),
    /// What the client is then to do.
    Poll(ClientId),
}

impl Engine {
    /// An engine that knows no client and no run.
    pub fn new(registry: Registry) -> Self {
        Self { state: State::default(), registry, jobs: BTreeMap::new(), presence: Presence::default() }
    }

    /// The engine as it stood when `snapshot` was committed, and the effects that may not have been performed.
    ///
    /// # Errors
    /// Records that do not parse or contradict one another, and runs that the registry's methods cannot go on with.
    pub fn resume(snapshot: Snapshot, registry: Registry) -> Result<(Self, Vec<Effect>), ResumeError> {
        let state = snapshot.into_state()?;
        let mut engine = Self { state, ..Self::new(registry) };
        for (id, run) in &engine.state.runs {
            if !matches!(run.live.phase, Phase::Ended(_)) {
                let job = run
                    .spec
                    .job(&engine.registry)
                    .map_err(|rejection| ResumeError::Run { run: id.clone(), reason: rejection.to_string() })?;
                engine.jobs.insert(id.clone(), job);
            }
        }
        engine.check()?;
        let outstanding = engine.state.runs.iter().filter(|(_, run)| matches!(run.live.phase, Phase::Aggregating(_)));
        let effects = outstanding.map(|(id, run)| Effect::Aggregate(Box::new(aggregating::plan(id, run)))).collect();
        Ok((engine, effects))
    }

    /// Takes note of what happened at `now`, and decides what follows.
    ///
    /// # Errors
    /// The input is refused; the state is as it was.
    pub fn step(&mut self, now: Millis, input: Input) -> Result<Step, Rejection> {
        self.presence.tick(now);
        let mut turn = Turn::new(now);
        // Every handler checks first and writes then, so that a rejection leaves nothing behind.
        let answering = self.take(input, &mut turn)?;
        self.settle(&mut turn);
        let reply = match answering {
            Answering::With(reply) => reply,
            Answering::Poll(client) => Reply::Poll(Box::new(self.next_work(&client, &mut turn))),
            Answering::Run(run) => self.run_summary(&run).map_or(Reply::Done, |run| Reply::Run(Box::new(run))),
            Answering::Client(client) => {
                self.client(&client).map_or(Reply::Done, |client| Reply::Client(Box::new(client)))
            }
        };
        let Turn { changed, mut effects, garbage, .. } = turn;
        effects.extend(self.drop_blobs(garbage));
        Ok(Step { reply, effects, changed: changed.into_iter().collect() })
    }

    fn take(&mut self, input: Input, turn: &mut Turn) -> Result<Answering, Rejection> {
        match input {
            Input::CreateRun { run, run_file, base, initial, key } => {
                self.create_run(run, run_file, base, initial.map(|initial| *initial), key, turn)
            }
            Input::Pause { run } => self.pause(run, turn),
            Input::Resume { run } => self.unpause(run, turn),
            Input::Cancel { run } => self.cancel(run, turn),
            Input::Enrolled { client, fingerprint, expires, approved } => {
                self.enrolled(client, fingerprint, expires, approved, turn)
            }
            Input::Renewed { client, fingerprint, expires } => self.renewed(client, fingerprint, expires, turn),
            Input::Approve { client } => self.approve(client, turn),
            Input::Drain { client } => self.drain(client, turn),
            Input::Revoke { client } => self.revoke(client, turn),
            Input::Poll { client, datasets, bases, max_rank, version } => {
                self.poll(client, datasets, bases, max_rank, &version, turn)
            }
            Input::Answer { client, run, accept, reason, rank } => {
                self.answer(&client, &run, accept, &reason, rank, turn)
            }
            Input::Heartbeat { client, work, state, step, steps, loss } => {
                self.heartbeat(&client, work, state, (step, steps), loss, turn)
            }
            Input::UploadBegun { client, work, digest } => self.upload_begun(&client, work, &digest, turn),
            Input::UpdateStored { client, work, update } => self.update_stored(&client, &work, update, turn),
            Input::UpdateRefused { client, work, reason } => self.update_refused(&client, &work, &reason, turn),
            Input::ClientFailed { client, work, reason } => self.client_failed(&client, &work, &reason, turn),
            Input::Delivered { client, run, digest, bytes } => self.delivered(&client, &run, &digest, bytes, turn),
            Input::Evaluated { client, run, round, evaluation } => {
                self.evaluated(&client, &run, round, evaluation, turn)
            }
            Input::Aggregated {
                work,
                global,
                global_bytes,
                frozen,
                frozen_bytes,
                server,
                error,
                next_clip,
                ledger_head,
                notes,
            } => {
                let notes = notes.iter().map(|note| crate::desk::clean(note)).collect();
                let aggregate = aggregating::Aggregate {
                    global,
                    global_bytes,
                    frozen,
                    frozen_bytes,
                    server,
                    error,
                    next_clip,
                    ledger_head,
                    notes,
                };
                self.aggregated(&work, aggregate, turn)
            }
            Input::Releasing { work } => self.releasing(&work, turn),
            Input::AggregateFailed { work, reason } => self.aggregate_failed(&work, &reason, turn),
            Input::Tick => Ok(Answering::With(Reply::Done)),
        }
    }

    /// Lets every run decide until nobody has anything to decide. Older runs come first, and so get free clients first.
    fn settle(&mut self, turn: &mut Turn) {
        let mut is_moving = true;
        while is_moving {
            is_moving = false;
            for id in self.live_runs() {
                while self.settle_run(&id, turn) {
                    is_moving = true;
                }
            }
        }
    }

    fn settle_run(&mut self, id: &RunId, turn: &mut Turn) -> bool {
        let Some(run) = self.state.runs.get(id) else { return false };
        let engaged = match &run.live.phase {
            Phase::Recruiting(_) => self.state.engaged_elsewhere(id),
            _ => BTreeSet::new(),
        };
        let moved = self.desk(id, turn).is_ok_and(|mut desk| phases::settle(&mut desk, &engaged));
        self.forget_job_if_ended(id);
        moved
    }

    pub(crate) fn forget_job_if_ended(&mut self, id: &RunId) {
        if self.state.runs.get(id).is_some_and(|run| matches!(run.live.phase, Phase::Ended(_))) {
            self.jobs.remove(id);
        }
    }

    /// Runs that have not ended, oldest first.
    pub(crate) fn live_runs(&self) -> Vec<RunId> {
        let mut live: Vec<(Millis, &RunId)> = self
            .state
            .runs
            .iter()
            .filter(|(_, run)| !matches!(run.live.phase, Phase::Ended(_)))
            .map(|(id, run)| (run.spec.created_at, id))
            .collect();
        live.sort();
        live.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// Opens a run for writing.
    pub(crate) fn desk<'a>(&'a mut self, id: &'a RunId, turn: &'a mut Turn) -> Result<Desk<'a>, Rejection> {
        let run = self.state.runs.get_mut(id).ok_or_else(|| Rejection::UnknownRun { run: id.clone() })?;
        if let Phase::Ended(ended) = &run.live.phase {
            return Err(Rejection::RunEnded { run: id.clone(), outcome: ended.outcome.to_string() });
        }
        let job = self.jobs.get(id).ok_or_else(|| Rejection::UnknownRun { run: id.clone() })?;
        Ok(Desk::new(id, run, job, &self.state.clients, &self.presence, turn))
    }

    /// A client that may talk about work: enrolled, approved, not revoked.
    pub(crate) fn working_client(&self, id: &ClientId) -> Result<&Client, Rejection> {
        let client = self.state.clients.get(id).ok_or_else(|| Rejection::UnknownClient { client: id.clone() })?;
        match client.standing {
            Standing::Active | Standing::Draining => Ok(client),
            Standing::Pending | Standing::Revoked => {
                Err(Rejection::ClientState { client: id.clone(), state: client.standing.as_str() })
            }
        }
    }

    /// Orders to drop what nobody needs any more. Equal updates share a blob, and an aggregate of one update can equal
    /// it, so every run is asked.
    fn drop_blobs(&self, garbage: BTreeMap<RunId, BTreeSet<Digest>>) -> Vec<Effect> {
        if garbage.is_empty() {
            return Vec::new();
        }
        let needed = self.state.blobs();
        let mut effects = Vec::new();
        for (run, digests) in garbage {
            let digests: Vec<Digest> = digests.difference(&needed).copied().collect();
            if !digests.is_empty() {
                effects.push(Effect::DropBlobs { run, digests });
            }
        }
        effects
    }

    /// The bytes of a record; `None` when there is no such record any more.
    pub fn record(&self, key: &RecordKey) -> Option<Vec<u8>> {
        self.state.record(key)
    }

    /// All records, for a checkpoint.
    pub fn records(&self) -> Snapshot {
        self.state.records()
    }

    /// When to send [`Input::Tick`] if nothing else happens.
    pub fn next_wake(&self) -> Option<Millis> {
        let awake = self.state.runs.values().filter(|run| run.live.paused_at.is_none());
        awake.filter_map(|run| run.live.phase.next_wake(run.spec.policy.grace_ms)).min()
    }

    /// Whether the state is one that can be: invariants R1 to R5 and R7.
    ///
    /// # Errors
    /// The first violation found.
    pub fn check(&self) -> Result<(), Violation> {
        invariants::check(&self.state)
    }

    /// Whether every blob that is needed exists: invariant R6.
    ///
    /// # Errors
    /// The first missing blob.
    pub fn check_blobs(&self, exists: &dyn Fn(&Digest) -> bool) -> Result<(), Violation> {
        invariants::check_blobs(&self.state, exists)
    }

    /// All that is durable.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Every blob that some run needs. What else a blob store holds may be dropped at start-up.
    pub fn blobs(&self) -> BTreeSet<Digest> {
        self.state.blobs()
    }

    /// Whether some run needs this blob.
    pub fn references(&self, digest: &Digest) -> bool {
        self.state.runs.values().any(|run| run.blobs().any(|blob| blob == *digest))
    }
}
