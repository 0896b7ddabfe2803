//! The Rondo client: a daemon that takes part in federated fine-tuning runs with data that never leaves its machine.
//!
//! The daemon ([`daemon`]) polls a coordinator through a port ([`api`]), checks what it is asked for against its own
//! [`policy`], trains through the [`work::Trainer`] trait, keeps every update in its [`spool`] until the coordinator has
//! it, and uploads it. Only the `trainer` module, behind the feature `torch`, knows libtorch.

pub mod answers;
pub mod api;
pub mod cache;
pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod data;
pub mod disk;
pub mod gguf;
pub mod home;
#[cfg(feature = "hub")]
pub mod hub;
pub mod logging;
pub mod memory;
pub mod models;
pub mod policy;
pub mod quant;
pub mod renewal;
pub mod spool;
#[cfg(feature = "torch")]
pub mod trainer;
pub mod work;
pub mod worker;
