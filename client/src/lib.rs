//! The Rondo client: a daemon that takes part in federated fine-tuning
//! runs with data that never leaves its machine.
//!
//! The daemon ([`daemon`]) polls a coordinator through a port ([`api`]) and checks what it is
//! asked for against its own [`policy`]. It trains through the
//! [`rondo_trainer_api::work::Trainer`] trait, keeps every update in its [`spool`] until the
//! coordinator has it, and uploads it. Only the offline commands and the start of the daemon,
//! behind the feature `torch`, know libtorch, through `rondo-trainer`.

pub mod answers;
pub mod api;
pub mod cache;
pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod decisions;
pub mod disk;
pub mod history;
pub mod home;
#[cfg(feature = "hub")]
pub mod hub;
pub mod logging;
pub mod models;
pub mod policy;
pub mod renewal;
pub mod site_check;
pub mod spool;
pub mod terms;
pub mod what_leaves;
pub mod worker;
