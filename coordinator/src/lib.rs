//! The Rondo coordinator: gRPC over mutual TLS, enrolment, storage, the driver of the round engine and the executor of
//! its effects. The engine decides, the driver does.
//!
//! - [`serve`] puts the parts together; [`cli`], [`config`], [`init`], [`operator`] and [`set_up`] are the way in,
//!   [`complaint`] the way out of a command that failed.
//! - [`driver`] owns the engine: commit and flush first, then answers and effects. [`executor`] carries effects out.
//! - [`store`] keeps records and tensors; [`upload`] is the way of an update to them, [`initials`] that of
//!   an adapter that a run starts from.
//! - [`executor`] aggregates; [`release`] is what it may take from updates where clients are promised privacy.
//! - [`incoming`] takes connections, [`upkeep`] looks after what ages.
//! - [`grpc`] holds the services, [`tls`] the certificates, [`members`] and [`tokens`] who may call.

pub mod bases;
pub mod books;
pub mod cli;
pub mod clock;
pub mod complaint;
pub mod config;
pub mod data_dir;
pub mod driver;
pub mod executor;
pub mod garbage;
pub mod grpc;
pub mod incoming;
pub mod init;
pub mod initials;
pub mod logging;
pub mod members;
pub mod operator;
pub mod release;
pub mod serve;
pub mod set_up;
pub mod store;
pub mod tls;
pub mod tokens;
pub mod upkeep;
pub mod upload;

// The integration tests' updates.
#[cfg(test)]
#[allow(dead_code)]
#[path = "../tests/it/tensors.rs"]
mod test_tensors;
