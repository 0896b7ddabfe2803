//! One file per command: its arguments, whose doc comments are its help, and what it does.

pub mod approve;
pub mod check;
pub mod declare;
pub mod decline;
#[cfg(feature = "hub")]
pub mod fetch;
pub mod history;
pub mod join;
pub mod ledger;
#[cfg(feature = "torch")]
pub mod offline;
pub mod run;
