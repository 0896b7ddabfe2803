//! The driver: one task owns the engine. It feeds inputs to it one after another, commits what changed and flushes, and
//! only then answers and lets effects go. Inputs that wait together share one commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rondo_methods::Registry;
use rondo_proto::error::{ErrorCode, status};
use rondo_rounds::{Effect, Engine, Input, RecordKey, Rejection, Reply, ResumeError, Snapshot};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::{Clock, until};
use crate::store::{Batch, Store, StoreError};

/// Inputs that may wait; beyond it callers wait to hand theirs in.
const QUEUE: usize = 256;
/// Inputs per commit at most.
const PER_COMMIT: usize = 64;
/// The longest sleep: a clock that is set back or forth is noticed this soon.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// The shortest sleep after a tick that changed nothing.
const MIN_SLEEP: Duration = Duration::from_millis(50);

/// What goes from the driver to the executor.
#[derive(Debug)]
pub enum Order {
    /// An effect of the engine; its state is durable.
    Effect(Effect),
    /// A round or a run closed: staged uploads that nobody waits for can go.
    Sweep,
}

/// Why an input came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The engine refuses it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It could not be made durable, so it did not happen.
    #[error("the coordinator cannot write its store: {0}")]
    Store(String),
    /// The coordinator is going down.
    #[error("the coordinator is shutting down")]
    Stopped,
}

impl From<DriverError> for tonic::Status {
    fn from(error: DriverError) -> Self {
        match &error {
            DriverError::Rejected(rejection) => {
                status(rejection.code(), rejection.to_string(), rejection.hint().as_deref())
            }
            DriverError::Store(_) => status(
                ErrorCode::Unavailable,
                error.to_string(),
                Some("free space on the coordinator's disk; nothing was changed, try again then"),
            ),
            DriverError::Stopped => status(ErrorCode::Unavailable, error.to_string(), Some("try again in a moment")),
        }
    }
}

/// Why a driver could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The records cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The records do not make a state.
    #[error(transparent)]
    Resume(#[from] ResumeError),
}

type Outcome = Result<Reply, DriverError>;
type ReplyTo = oneshot::Sender<Outcome>;
type View = Box<dyn FnOnce(&Engine) + Send>;

enum Command {
    Step { input: Option<Input>, also: Batch, reply: ReplyTo },
    View(View),
    Stop,
}

/// Handle of the driver's task. Cheap to clone.
#[derive(Clone)]
pub struct Driver {
    commands: mpsc::Sender<Command>,
    version: watch::Receiver<u64>,
}

/// A driver that was just started.
pub struct Started {
    /// The handle.
    pub driver: Driver,
    /// What the executor is to do, outstanding effects of an earlier life first.
    pub orders: mpsc::UnboundedReceiver<Order>,
    /// Ends after [`Driver::stop`].
    pub task: JoinHandle<()>,
}

impl Driver {
    /// Reads the records, resumes the engine and starts the task.
    pub fn start(store: Arc<dyn Store>, registry: Registry, clock: Arc<dyn Clock>) -> Result<Started, StartError> {
        let (engine, outstanding) = resume(&*store, &registry)?;
        let (commands, receiver) = mpsc::channel(QUEUE);
        let (orders, order_receiver) = mpsc::unbounded_channel();
        let (version_sender, version) = watch::channel(0);
        let owner = Owner { engine, registry, store, clock, orders, version: version_sender, lost: false };
        owner.order(outstanding, true);
        let task = tokio::spawn(owner.run(receiver));
        Ok(Started { driver: Self { commands, version }, orders: order_receiver, task })
    }

    /// Hands an input in; answers when it is durable.
    pub async fn step(&self, input: Input) -> Result<Reply, DriverError> {
        self.submit(Some(input), Batch::new()).await
    }

    /// Hands an input in together with changes to other records, which become durable in the same commit or, when the
    /// input is rejected, not at all.
    pub async fn step_with(&self, input: Input, also: Batch) -> Result<Reply, DriverError> {
        self.submit(Some(input), also).await
    }

    /// Makes changes to records that are not the engine's durable.
    pub async fn commit(&self, batch: Batch) -> Result<(), DriverError> {
        self.submit(None, batch).await.map(|_| ())
    }

    async fn submit(&self, input: Option<Input>, also: Batch) -> Result<Reply, DriverError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Step { input, also, reply }).await.map_err(|_| DriverError::Stopped)?;
        answer.await.map_err(|_| DriverError::Stopped)?
    }

    /// Reads the engine's state, as of the last commit.
    pub async fn view<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, DriverError> {
        let (reply, answer) = oneshot::channel();
        let view: View = Box::new(move |engine| {
            // Whoever asked may have gone away.
            let _ = reply.send(read(engine));
        });
        self.commands.send(Command::View(view)).await.map_err(|_| DriverError::Stopped)?;
        answer.await.map_err(|_| DriverError::Stopped)
    }

    /// Counts what happened: whoever watches a run looks again when it changes.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.clone()
    }

    /// Ends the task once everything handed in before is done.
    pub async fn stop(&self) {
        // A task that is gone has stopped.
        let _ = self.commands.send(Command::Stop).await;
    }
}

/// The engine as the records have it, and the effects that were outstanding.
fn resume(store: &dyn Store, registry: &Registry) -> Result<(Engine, Vec<Effect>), StartError> {
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

struct Owner {
    engine: Engine,
    registry: Registry,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    orders: mpsc::UnboundedSender<Order>,
    version: watch::Sender<u64>,
    /// A commit failed, so memory may be ahead of the disk: the engine is read anew before anything else.
    lost: bool,
}

/// Steps that share a commit.
#[derive(Default)]
struct Pending {
    changed: BTreeSet<RecordKey>,
    also: Batch,
    effects: Vec<Effect>,
    closes: bool,
    replies: Vec<(ReplyTo, Outcome)>,
}

impl Owner {
    async fn run(mut self, mut receiver: mpsc::Receiver<Command>) {
        let mut commands = Vec::with_capacity(PER_COMMIT);
        let mut idle_tick = false;
        loop {
            let wake = self.engine.next_wake().map(|wake| until(self.clock.now(), wake).min(MAX_SLEEP));
            let wake = wake.map(|sleep| if idle_tick { sleep.max(MIN_SLEEP) } else { sleep });
            tokio::select! {
                biased;
                count = receiver.recv_many(&mut commands, PER_COMMIT) => if count == 0 { return },
                () = tokio::time::sleep(wake.unwrap_or(MAX_SLEEP)), if wake.is_some() => {}
            }
            // Deadlines hold however busy the queue is.
            let now = self.clock.now();
            let due = self.engine.next_wake().is_some_and(|wake| wake <= now);
            let mut pending = Pending::default();
            if due && self.regain().is_ok() {
                self.step(&mut pending, Input::Tick, Batch::new(), None);
            }
            idle_tick = due && pending.changed.is_empty();
            for command in commands.drain(..) {
                match command {
                    Command::Step { input: Some(input), also, reply } => {
                        self.step(&mut pending, input, also, Some(reply));
                    }
                    Command::Step { input: None, also, reply } => {
                        pending.also.extend(also);
                        pending.replies.push((reply, Ok(Reply::Done)));
                    }
                    Command::View(read) => {
                        // A view must not see what is not durable yet.
                        self.settle(std::mem::take(&mut pending)).await;
                        if self.regain().is_ok() {
                            read(&self.engine);
                        }
                    }
                    Command::Stop => {
                        self.settle(pending).await;
                        return;
                    }
                }
            }
            self.settle(pending).await;
        }
    }

    fn step(&mut self, pending: &mut Pending, input: Input, also: Batch, reply: Option<ReplyTo>) {
        let outcome = self.regain().and_then(|()| Ok(self.engine.step(self.clock.now(), input)?));
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

    /// Commits, then answers and orders. On a failed commit nobody is told yes and no effect goes out.
    async fn settle(&mut self, pending: Pending) {
        let Pending { changed, mut also, effects, closes, replies } = pending;
        for key in &changed {
            match self.engine.record(key) {
                Some(bytes) => also.put(key.to_string(), bytes),
                None => also.delete(key.to_string()),
            }
        }
        let committed = if also.is_empty() { Ok(()) } else { self.commit(also).await };
        if let Err(error) = committed {
            tracing::error!(%error, "commit failed, the state is read anew");
            self.lost = true;
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
            // Whoever asked may have gone away; the state is durable all the same.
            let _ = reply.send(answer);
        }
        self.order(effects, closes);
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

    fn order(&self, effects: Vec<Effect>, closes: bool) {
        let sweep = closes || effects.iter().any(|e| matches!(e, Effect::DropBlobs { .. } | Effect::Aggregate(_)));
        let orders = effects.into_iter().map(Order::Effect).chain(sweep.then_some(Order::Sweep));
        for order in orders {
            // The executor ends after the driver, except when the whole process goes down.
            let _ = self.orders.send(order);
        }
    }

    /// After a failed commit: reads the engine from the store again, and repeats its outstanding effects.
    fn regain(&mut self) -> Result<(), DriverError> {
        if !self.lost {
            return Ok(());
        }
        let (engine, outstanding) =
            resume(&*self.store, &self.registry).map_err(|e| DriverError::Store(e.to_string()))?;
        self.engine = engine;
        self.lost = false;
        self.order(outstanding, false);
        Ok(())
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
