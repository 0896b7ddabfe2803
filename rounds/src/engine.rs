//! The engine: one input in, a reply, effects and changed records out. It knows no clock, no disk
//! and no network.

use std::collections::{BTreeMap, BTreeSet};

use rondo_methods::{Job, Registry};
use rondo_proto::{ClientId, Digest, RunId};

use crate::effect::{Effect, Reply, Step};
use crate::input::{Input, Offers};
use crate::invariants::{self, Violation};
use crate::key::{Millis, RecordKey};
use crate::liveness::Liveness;
use crate::phases::{aggregating, collecting, publishing, recruiting};
use crate::record::{ResumeError, Snapshot};
use crate::rejection::Rejection;
use crate::run_context::{Changes, RunContext, clean};
use crate::state::phase::Phase;
use crate::state::{Client, ClientStatus, State};

/// Decides everything that happens in every run.
///
/// The driver gives it one [`Input`] at a time ([`Engine::step`]), commits and flushes the changed
/// records, and only then answers and performs the effects. After a crash it builds a new engine
/// from the records ([`Engine::resume`]), which gives the outstanding effects again.
#[derive(Debug)]
pub struct Engine {
    pub(crate) state: State,
    pub(crate) registry: Registry,
    /// Runs that have not ended, resolved against their base and method.
    pub(crate) jobs: BTreeMap<RunId, Job>,
    pub(crate) liveness: Liveness,
}

/// Where the answer to an input comes from, once the runs have advanced.
pub(crate) enum PendingReply {
    /// It is known.
    Ready(Reply),
    /// The run as it is then.
    Run(RunId),
    /// The client as it is then.
    Client(ClientId),
    /// What the client is to do next.
    Poll(ClientId),
}

impl Engine {
    /// An engine that knows no client and no run.
    pub fn new(registry: Registry) -> Self {
        Self { state: State::default(), registry, jobs: BTreeMap::new(), liveness: Liveness::default() }
    }

    /// The engine as it was when `snapshot` was committed, and the effects that may not have been
    /// performed.
    ///
    /// # Errors
    /// Records that do not parse or contradict one another, and runs that the registry's methods
    /// cannot go on with.
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
        self.liveness.tick(now);
        let mut changes = Changes::new(now);
        // A handler checks before it writes, so that a rejection changes nothing.
        let answering = self.take(input, &mut changes)?;
        self.advance(&mut changes);
        let reply = match answering {
            PendingReply::Ready(reply) => reply,
            PendingReply::Poll(client) => Reply::Poll(Box::new(self.next_work(&client, &mut changes))),
            PendingReply::Run(run) => self.run_summary(&run).map_or(Reply::Done, |run| Reply::Run(Box::new(run))),
            PendingReply::Client(client) => {
                self.client(&client).map_or(Reply::Done, |client| Reply::Client(Box::new(client)))
            }
        };
        let Changes { records, mut effects, dropped_blobs, .. } = changes;
        effects.extend(self.drop_blobs(dropped_blobs));
        Ok(Step { reply, effects, changed: records.into_iter().collect() })
    }

    fn take(&mut self, input: Input, changes: &mut Changes) -> Result<PendingReply, Rejection> {
        match input {
            Input::CreateRun { run, run_file, base, start_adapter, key } => {
                self.create_run(run, run_file, base, start_adapter.map(|adapter| *adapter), key, changes)
            }
            Input::Pause { run } => self.pause(run, changes),
            Input::Resume { run } => self.unpause(run, changes),
            Input::Cancel { run } => self.cancel(run, changes),
            Input::Enrolled { client, fingerprint, expires, approved } => {
                self.enrolled(client, fingerprint, expires, approved, changes)
            }
            Input::Renewed { client, fingerprint, expires } => self.renewed(client, fingerprint, expires, changes),
            Input::Approve { client } => self.approve(client, changes),
            Input::Drain { client } => self.drain(client, changes),
            Input::Revoke { client } => self.revoke(client, changes),
            Input::Poll { client, datasets, bases, tokens, max_rank, version } => {
                self.poll(client, Offers { datasets, bases, tokens, max_rank, version }, changes)
            }
            Input::Answer { client, run, accept, reason, rank } => {
                self.answer(&client, &run, accept, &reason, rank, changes)
            }
            Input::Undecided { client, run, reason } => self.undecided(&client, &run, &reason, changes),
            Input::Heartbeat { client, work, state, step, steps, loss } => {
                self.heartbeat(&client, work, state, (step, steps), loss, changes)
            }
            Input::UploadBegun { client, work, digest } => self.upload_begun(&client, work, &digest, changes),
            Input::UpdateStored { client, work, update } => self.update_stored(&client, &work, update, changes),
            Input::UpdateRefused { client, work, reason } => self.update_refused(&client, &work, &reason, changes),
            Input::ClientFailed { client, work, reason } => self.client_failed(&client, &work, &reason, changes),
            Input::Delivered { client, run, digest, bytes } => self.delivered(&client, &run, &digest, bytes, changes),
            Input::Evaluated { client, run, round, evaluation, min_group } => {
                self.evaluated(&client, &run, round, (evaluation, min_group), changes)
            }
            Input::Withheld { client, work } => self.withheld(&client, &work, changes),
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
                let notes = notes.iter().map(|note| clean(note)).collect();
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
                self.aggregated(&work, aggregate, changes)
            }
            Input::Releasing { work } => self.releasing(&work, changes),
            Input::AggregateFailed { work, reason } => self.aggregate_failed(&work, &reason, changes),
            Input::Tick => Ok(PendingReply::Ready(Reply::Done)),
        }
    }

    /// Lets every run decide until none has anything left to decide. Older runs come first, and so
    /// get free clients first.
    fn advance(&mut self, changes: &mut Changes) {
        let mut is_moving = true;
        while is_moving {
            is_moving = false;
            for id in self.live_runs() {
                while self.advance_run(&id, changes) {
                    is_moving = true;
                }
            }
        }
    }

    fn advance_run(&mut self, id: &RunId, changes: &mut Changes) -> bool {
        let Some(run) = self.state.runs.get(id) else { return false };
        let engaged = match &run.live.phase {
            Phase::Recruiting(_) => self.state.engaged_elsewhere(id),
            _ => BTreeSet::new(),
        };
        let moved = self.open_run(id, changes).is_ok_and(|mut ctx| advance(&mut ctx, &engaged));
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
    pub(crate) fn open_run<'a>(
        &'a mut self,
        id: &'a RunId,
        changes: &'a mut Changes,
    ) -> Result<RunContext<'a>, Rejection> {
        let run = self.state.runs.get_mut(id).ok_or_else(|| Rejection::UnknownRun { run: id.clone() })?;
        if let Phase::Ended(ended) = &run.live.phase {
            return Err(Rejection::RunEnded { run: id.clone(), outcome: ended.outcome.to_string() });
        }
        let job = self.jobs.get(id).ok_or_else(|| Rejection::UnknownRun { run: id.clone() })?;
        Ok(RunContext::new(id, run, job, &self.state.clients, &self.liveness, changes))
    }

    /// A client that may talk about work: enrolled, approved, not revoked.
    pub(crate) fn working_client(&self, id: &ClientId) -> Result<&Client, Rejection> {
        let client = self.state.clients.get(id).ok_or_else(|| Rejection::UnknownClient { client: id.clone() })?;
        match client.status {
            ClientStatus::Active | ClientStatus::Draining => Ok(client),
            ClientStatus::Pending | ClientStatus::Revoked => {
                Err(Rejection::ClientState { client: id.clone(), state: client.status.as_str() })
            }
        }
    }

    /// Effects that drop blobs which nobody needs any more. Equal updates share a blob, and an
    /// aggregate of one update can equal it, so every run is asked.
    fn drop_blobs(&self, dropped: BTreeMap<RunId, BTreeSet<Digest>>) -> Vec<Effect> {
        if dropped.is_empty() {
            return Vec::new();
        }
        let needed = self.state.blobs();
        let mut effects = Vec::new();
        for (run, digests) in dropped {
            let digests: Vec<Digest> = digests.difference(&needed).copied().collect();
            if !digests.is_empty() {
                effects.push(Effect::DropBlobs { run, digests });
            }
        }
        effects
    }

    /// The bytes of a record, JSON. `None` when the record was deleted.
    pub fn record(&self, key: &RecordKey) -> Option<Vec<u8>> {
        self.state.record(key)
    }

    /// All records, for a checkpoint.
    pub fn records(&self) -> Snapshot {
        self.state.records()
    }

    /// When to send [`Input::Tick`] if nothing else happens, Unix time in milliseconds.
    pub fn next_wake(&self) -> Option<Millis> {
        let awake = self.state.runs.values().filter(|run| run.live.paused_at.is_none());
        awake.filter_map(|run| run.live.phase.next_wake(run.spec.policy.grace_ms)).min()
    }

    /// Checks invariants R1 to R5 and R7 to R9.
    ///
    /// # Errors
    /// The first violation found.
    pub fn check(&self) -> Result<(), Violation> {
        invariants::check(&self.state)
    }

    /// Checks invariant R6: every blob that is needed exists.
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

/// Moves the run on by one decision, if there is one to make now. `engaged` are clients that are at
/// work for other runs. Nothing is decided in a paused run.
fn advance(ctx: &mut RunContext<'_>, engaged: &BTreeSet<ClientId>) -> bool {
    if ctx.run().live.paused_at.is_some() {
        return false;
    }
    match &ctx.run().live.phase {
        Phase::Recruiting(_) => recruiting::advance(ctx, engaged),
        Phase::WarmUp(_) | Phase::Training(_) => collecting::advance(ctx),
        Phase::Publishing(_) => publishing::advance(ctx),
        Phase::Aggregating(_) | Phase::Ended(_) => false,
    }
}
