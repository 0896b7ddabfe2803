//! One file per command: its arguments, whose doc comments are its help, and what it does.

#[cfg(feature = "torch")]
pub mod chat;
#[cfg(feature = "torch")]
pub mod evaluate;
#[cfg(feature = "hub")]
pub mod fetch;
#[cfg(feature = "torch")]
mod figures;
#[cfg(feature = "torch")]
pub mod generate;
pub mod join;
pub mod ledger;
#[cfg(feature = "torch")]
mod logits;
#[cfg(feature = "torch")]
pub mod merge;
#[cfg(feature = "torch")]
mod offline;
#[cfg(feature = "torch")]
mod out_dir;
#[cfg(feature = "torch")]
pub mod plan;
#[cfg(feature = "torch")]
mod predictions;
pub mod run;
#[cfg(feature = "torch")]
mod sampling;
#[cfg(feature = "torch")]
mod subject;
#[cfg(feature = "torch")]
mod task;
#[cfg(feature = "torch")]
pub mod train;
#[cfg(feature = "torch")]
pub mod wording;
