//! The round engine of Rondo: a pure state machine. Inputs come in with the time. Effects and
//! changed records go out.
//!
//! Nothing here does I/O, reads a clock or draws at random. So tests simulate whole runs with
//! crashes, lost replies and clock jumps, and a restart finds exactly what was committed. State
//! holds ids and digests, never tensors.
//!
//! - [`Engine`] is the entry: [`Engine::step`], [`Engine::resume`], and views.
//! - [`input`], [`effect`] and [`rejection`] are its language; [`record`] is its durable form.
//! - [`key`] and [`state`] hold keys and data. They import nothing of what acts on them.
//! - `handlers` takes inputs, one file per kind of sender. They write through `run_context` and
//!   call `phases`, one file per phase of a round.
//! - [`policy`] is the declared round policy, [`cohort`] the draw, `guarantee` what a run's privacy
//!   asks.
//! - [`invariants`] says what must always hold.

pub mod cohort;
pub mod effect;
pub mod engine;
pub mod input;
pub mod invariants;
pub mod key;
pub mod policy;
pub mod record;
pub mod rejection;
pub mod state;

mod guarantee;
mod handlers;
mod liveness;
mod phases;
mod round_record;
mod run_context;
mod views;

pub use effect::{AggregatePlan, Effect, PlannedUpdate, Release, Reply, Step, UploadOutcome};
pub use engine::Engine;
pub use handlers::{Clipped, ExpectedUpload};
pub use input::{Input, StoredUpdate};
pub use invariants::Violation;
pub use key::{CohortKey, Millis, RecordKey, RoundKind, WorkKey};
pub use record::{ResumeError, Snapshot};
pub use rejection::Rejection;
pub use state::publication::AdapterBlobs;
