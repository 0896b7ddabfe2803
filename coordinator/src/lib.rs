//! The Rondo coordinator: gRPC over mutual TLS, enrolment, storage, the driver of the round engine
//! and the executor of its effects. The engine decides, the driver does.
//!
//! - [`serve`] puts the components together. [`cli`], [`config`], [`init`], [`operator`] and
//!   [`setup`] are the commands, [`error_report`] is how a failed command reports its error.
//! - [`driver`] owns the engine: commit and flush first, then answers and effects.
//! - [`executor`] carries effects out. It aggregates; [`dp_release`] is what it may take from
//!   updates of a run with privacy per client, and [`ledger_check`] compares the privacy ledger
//!   with the records at the start.
//! - [`store`] keeps records and tensors, [`blob_gc`] deletes those that no run references.
//! - [`upload`] receives updates, [`start_adapters`] receives adapters that runs start from.
//! - [`listener`] accepts connections, [`maintenance`] renews what ages.
//! - [`grpc`] holds the services, [`tls`] the certificates, [`members`] and [`tokens`] who may
//!   call.

pub mod bases;
pub mod blob_gc;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod dp_release;
pub mod driver;
pub mod error_report;
pub mod executor;
pub mod grpc;
pub mod init;
pub mod ledger_check;
pub mod listener;
pub mod logging;
pub mod maintenance;
pub mod members;
pub mod operator;
pub mod serve;
pub mod setup;
pub mod start_adapters;
pub mod store;
pub mod tls;
pub mod tokens;
pub mod upload;

// The integration tests' updates.
#[cfg(test)]
#[allow(dead_code)]
#[path = "../tests/it/tensors.rs"]
mod test_tensors;
