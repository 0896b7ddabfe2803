//! What goes into the engine's task, and what comes out of it for the executor.

use rondo_rounds::{Effect, Engine, Input, Reply};
use tokio::sync::oneshot;

use super::error::DriverError;
use crate::store::Batch;

/// What the driver asks of the executor.
#[derive(Debug)]
pub enum DriverRequest {
    /// An effect of the engine; the state that caused it is durable.
    Effect(Effect),
    /// A round or a run closed: staged uploads that nobody waits for can go.
    CollectGarbage,
}

/// The answer to an input.
pub(super) type StepResult = Result<Reply, DriverError>;
/// Where the answer to an input goes.
pub(super) type ReplyTo = oneshot::Sender<StepResult>;
/// A read of the engine's state, its answer sent from within.
pub(super) type View = Box<dyn FnOnce(&Engine) + Send>;

/// What a handle of the driver asks of the engine's task.
pub(super) enum Command {
    /// Steps the engine, if there is an input, and commits `also` with it.
    Step { input: Option<Box<Input>>, also: Batch, reply: ReplyTo },
    /// Reads the engine's state as of the last commit.
    View(View),
    /// Ends the task.
    Stop,
}
