//! The driver: one task owns the engine. It gives the engine one input after another, commits what
//! changed, and flushes. Only then it answers and sends effects to the executor. Inputs that wait
//! together share one commit.

mod engine_task;
mod error;
mod message;

use std::sync::Arc;

use rondo_methods::Registry;
use rondo_rounds::{Engine, Input, Reply};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::store::{Batch, Store};
use engine_task::EngineTask;
pub use error::{DriverError, StartError};
pub use message::DriverRequest;
use message::{Command, View};

/// Inputs that may wait in the queue; further callers wait to send theirs.
const QUEUE: usize = 256;

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
    pub requests: mpsc::UnboundedReceiver<DriverRequest>,
    /// Ends after [`Driver::stop`].
    pub task: JoinHandle<()>,
}

impl Driver {
    /// Reads the records, resumes the engine and starts the task.
    ///
    /// # Errors
    /// The records cannot be read, or they do not make a state.
    pub fn start(store: Arc<dyn Store>, registry: Registry, clock: Arc<dyn Clock>) -> Result<Started, StartError> {
        let (engine, outstanding) = engine_task::resume(&*store, &registry)?;
        let (commands, receiver) = mpsc::channel(QUEUE);
        let (requests, request_receiver) = mpsc::unbounded_channel();
        let (version_sender, version) = watch::channel(0);
        let task = EngineTask::new(engine, registry, store, clock, requests, version_sender);
        task.send_requests(outstanding, true);
        let task = tokio::spawn(task.run(receiver));
        Ok(Started { driver: Self { commands, version }, requests: request_receiver, task })
    }

    /// Gives the engine an input; returns when its result is durable.
    ///
    /// # Errors
    /// The engine rejects it, the store cannot be written, or the driver has stopped. Nothing
    /// happened then.
    pub async fn step(&self, input: Input) -> Result<Reply, DriverError> {
        self.submit(Some(input), Batch::new()).await
    }

    /// Gives the engine an input together with changes to other records, which become durable in
    /// the same commit or, when the input is rejected, not at all.
    ///
    /// # Errors
    /// The engine rejects the input, the store cannot be written, or the driver has stopped.
    /// Nothing happened then.
    pub async fn step_with(&self, input: Input, also: Batch) -> Result<Reply, DriverError> {
        self.submit(Some(input), also).await
    }

    /// Commits changes to records that are not the engine's.
    ///
    /// # Errors
    /// The store cannot be written, or the driver has stopped. Nothing happened then.
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
    ///
    /// # Errors
    /// The driver has stopped.
    pub async fn view<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, DriverError> {
        let (reply, answer) = oneshot::channel();
        let view: View = Box::new(move |engine| {
            // The caller may have gone away.
            let _ = reply.send(read(engine));
        });
        self.commands.send(Command::View(view)).await.map_err(|_| DriverError::Stopped)?;
        answer.await.map_err(|_| DriverError::Stopped)
    }

    /// Counts changes: a watcher of a run reads it again when the number changes.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.clone()
    }

    /// Ends the task once everything submitted before is done.
    pub async fn stop(&self) {
        // A task that is gone has stopped.
        let _ = self.commands.send(Command::Stop).await;
    }
}

#[cfg(test)]
#[path = "driver/tests.rs"]
mod tests;
