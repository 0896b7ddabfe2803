//! The task that owns the engine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rondo_methods::Registry;
use rondo_rounds::{Effect, Engine, Input, RecordKey, Reply, Snapshot};
use tokio::sync::{mpsc, watch};

use super::error::{DriverError, StartError};
use super::message::{Command, DriverRequest, ReplyTo, StepResult};
use crate::clock::{Clock, time_left};
use crate::store::{Batch, Store, StoreError};

/// Inputs per commit at most.
const PER_COMMIT: usize = 64;
/// The longest sleep: a clock that is set back or forth is noticed this soon.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// The shortest sleep after a tick that changed nothing.
const MIN_SLEEP: Duration = Duration::from_millis(50);
/// Pause before the next try after a failed commit.
const COMMIT_BACKOFF: Duration = Duration::from_secs(1);

/// The engine as the records have it, and the effects that were outstanding.
pub(super) fn resume(store: &dyn Store, registry: &Registry) -> Result<(Engine, Vec<Effect>), StartError> {
    let mut snapshot = Snapshot::default();
    for prefix in ["client/", "run/"] {
        for (key, bytes) in store.scan(prefix)? {
            let name: RecordKey = key
                .parse()
                .map_err(|_| StoreError::Record { key, problem: "is not a record this build knows".to_owned() })?;
            snapshot.records.insert(name, bytes);
        }
    }
    Ok(Engine::resume(snapshot, registry.clone())?)
}

pub(super) struct EngineTask {
    engine: Engine,
    registry: Registry,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    requests: mpsc::UnboundedSender<DriverRequest>,
    version: watch::Sender<u64>,
    /// A commit failed, so memory may be ahead of the disk: the engine is read again before
    /// anything else.
    stale: bool,
}

/// Steps that share a commit.
#[derive(Default)]
struct PendingCommit {
    changed: BTreeSet<RecordKey>,
    also: Batch,
    effects: Vec<Effect>,
    closes: bool,
    replies: Vec<(ReplyTo, StepResult)>,
}

impl EngineTask {
    /// The task of an engine whose state is that of the store.
    pub(super) fn new(
        engine: Engine,
        registry: Registry,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        requests: mpsc::UnboundedSender<DriverRequest>,
        version: watch::Sender<u64>,
    ) -> Self {
        Self { engine, registry, store, clock, requests, version, stale: false }
    }

    pub(super) async fn run(mut self, mut receiver: mpsc::Receiver<Command>) {
        let mut commands = Vec::with_capacity(PER_COMMIT);
        let mut idle_tick = false;
        loop {
            let wake = self.engine.next_wake().map(|wake| time_left(self.clock.now(), wake).min(MAX_SLEEP));
            let wake = wake.map(|sleep| if idle_tick { sleep.max(MIN_SLEEP) } else { sleep });
            // What the engine in memory waits for means nothing after a failed commit: it is ahead
            // of the disk.
            let wake = if self.stale { Some(COMMIT_BACKOFF) } else { wake };
            tokio::select! {
                biased;
                count = receiver.recv_many(&mut commands, PER_COMMIT) => if count == 0 { return },
                () = tokio::time::sleep(wake.unwrap_or(MAX_SLEEP)), if wake.is_some() => {}
            }
            // Deadlines hold however busy the queue is.
            let now = self.clock.now();
            let reloaded = self.reload().inspect_err(|error| tracing::warn!(%error, "the state is not read yet"));
            let due = reloaded.is_ok() && self.engine.next_wake().is_some_and(|wake| wake <= now);
            let mut pending = PendingCommit::default();
            if due {
                self.step(&mut pending, Input::Tick, Batch::new(), None);
            }
            idle_tick = due && pending.changed.is_empty();
            for command in commands.drain(..) {
                match command {
                    Command::Step { input: Some(input), also, reply } => {
                        self.step(&mut pending, *input, also, Some(reply));
                    }
                    Command::Step { input: None, also, reply } => {
                        pending.also.extend(also);
                        pending.replies.push((reply, Ok(Reply::Done)));
                    }
                    Command::View(read) => {
                        // A view must not see what is not durable yet.
                        self.commit_pending(std::mem::take(&mut pending)).await;
                        if self.reload().is_ok() {
                            read(&self.engine);
                        }
                    }
                    Command::Stop => {
                        self.commit_pending(pending).await;
                        return;
                    }
                }
            }
            self.commit_pending(pending).await;
        }
    }

    fn step(&mut self, pending: &mut PendingCommit, input: Input, also: Batch, reply: Option<ReplyTo>) {
        let outcome = self.reload().and_then(|()| Ok(self.engine.step(self.clock.now(), input)?));
        let answer = match outcome {
            Ok(step) => {
                pending.closes |= step.changed.iter().any(|key| matches!(key, RecordKey::Round(..)));
                pending.changed.extend(step.changed);
                pending.effects.extend(step.effects);
                pending.also.extend(also);
                Ok(step.reply)
            }
            Err(error) => Err(error),
        };
        if cfg!(debug_assertions)
            && let Err(violation) = self.engine.check()
        {
            tracing::error!(%violation, "the engine broke an invariant");
        }
        if let Some(reply) = reply {
            pending.replies.push((reply, answer));
        }
    }

    /// Commits, then answers the callers and sends the effects. After a failed commit every caller
    /// gets an error and no effect is sent.
    async fn commit_pending(&mut self, pending: PendingCommit) {
        let PendingCommit { changed, mut also, effects, closes, replies } = pending;
        for key in &changed {
            match self.engine.record(key) {
                Some(bytes) => also.put(key.to_string(), bytes),
                None => also.delete(key.to_string()),
            }
        }
        let committed = if also.is_empty() { Ok(()) } else { self.commit(also).await };
        if let Err(error) = committed {
            tracing::error!(%error, "commit failed, the state is read again");
            self.stale = true;
            for (reply, _) in replies {
                let _ = reply.send(Err(DriverError::Store(error.to_string())));
            }
            return;
        }
        // Progress and presence are not records, but those who watch want to see them too.
        if !changed.is_empty() || replies.iter().any(|(_, answer)| answer.is_ok()) {
            self.version.send_modify(|version| *version += 1);
        }
        for (reply, answer) in replies {
            // The caller may have gone away; the state is durable all the same.
            let _ = reply.send(answer);
        }
        self.send_requests(effects, closes);
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let failed = |e: tokio::task::JoinError| StoreError::File {
            action: "write",
            path: "store".into(),
            source: std::io::Error::other(e),
        };
        tokio::task::spawn_blocking(move || store.commit(&batch)).await.map_err(failed)?
    }

    pub(super) fn send_requests(&self, effects: Vec<Effect>, closes: bool) {
        let collects = closes || effects.iter().any(|e| matches!(e, Effect::DropBlobs { .. } | Effect::Aggregate(_)));
        let requests =
            effects.into_iter().map(DriverRequest::Effect).chain(collects.then_some(DriverRequest::CollectGarbage));
        for request in requests {
            // The executor ends after the driver, except when the whole process goes down.
            let _ = self.requests.send(request);
        }
    }

    /// After a failed commit: reads the engine from the store again and repeats its outstanding
    /// effects.
    fn reload(&mut self) -> Result<(), DriverError> {
        if !self.stale {
            return Ok(());
        }
        let (engine, outstanding) =
            resume(&*self.store, &self.registry).map_err(|e| DriverError::Store(e.to_string()))?;
        self.engine = engine;
        self.stale = false;
        self.send_requests(outstanding, false);
        Ok(())
    }
}
