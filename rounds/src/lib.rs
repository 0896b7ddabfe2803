//! The round engine of Rondo: a pure state machine. Inputs come in with the time, effects and changed records go out.
//!
//! Nothing here does I/O, reads a clock or draws at random, so whole runs with crashes, lost replies and clock jumps are
//! simulated in tests, and a restart finds exactly what was committed. State holds ids and digests, never tensors.
//!
//! - [`Engine`] is the door: [`Engine::step`], [`Engine::resume`], and views.
//! - [`input`], [`effect`] and [`rejection`] are its language; [`record`] its durable form.
//! - [`phases`] holds one file per phase of a round, [`policy`] the declared round policy, [`cohort`] the draw, [`central`]
//!   the books of runs that promise privacy per client.
//! - [`invariants`] says what must always hold.

pub mod central;
pub mod cohort;
pub mod effect;
pub mod engine;
pub mod initial;
pub mod input;
pub mod invariants;
pub mod phases;
pub mod policy;
pub mod record;
pub mod rejection;
pub mod state;

mod assignments;
mod desk;
mod fleet;
mod guarantee;
mod lineage;
mod part;
mod presence;
mod queries;
mod reports;
mod steering;
mod views;

pub use central::CohortKey;
pub use effect::{AggregatePlan, Effect, PlannedUpdate, Release, Reply, RoundKind, Step, UploadOutcome};
pub use engine::Engine;
pub use input::{Input, StoredUpdate, WorkKey};
pub use invariants::Violation;
pub use queries::AdapterBlobs;
pub use record::{RecordKey, ResumeError, Snapshot};
pub use rejection::Rejection;
pub use reports::{Clipped, ExpectedUpload};

/// Unix time in milliseconds.
pub type Millis = i64;
