//! The driver: one task owns the engine. It feeds inputs to it one after another, commits what changed and flushes, and
//! only then answers and lets effects go. Inputs that wait together share one commit.

mod owner;

use std::sync::Arc;

use rondo_methods::Registry;
use rondo_proto::error::ErrorCode;
use rondo_rounds::{Effect, Engine, Input, Rejection, Reply, ResumeError};
use rondo_wire::status::status;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::store::{Batch, Store, StoreError};
use owner::Owner;

/// Inputs that may wait; beyond it callers wait to hand theirs in.
const QUEUE: usize = 256;

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
    Step { input: Option<Box<Input>>, also: Batch, reply: ReplyTo },
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
        let (engine, outstanding) = owner::resume(&*store, &registry)?;
        let (commands, receiver) = mpsc::channel(QUEUE);
        let (orders, order_receiver) = mpsc::unbounded_channel();
        let (version_sender, version) = watch::channel(0);
        let owner = Owner::new(engine, registry, store, clock, orders, version_sender);
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
        self.commands
            .send(Command::Step { input: input.map(Box::new), also, reply })
            .await
            .map_err(|_| DriverError::Stopped)?;
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

#[cfg(test)]
#[path = "driver/tests.rs"]
mod tests;
