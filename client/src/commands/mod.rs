//! One file per command: its arguments, whose doc comments are its help, and what it does.

#[cfg(feature = "torch")]
pub mod evaluate;
#[cfg(feature = "hub")]
pub mod fetch;
pub mod join;
#[cfg(feature = "torch")]
mod offline;
pub mod run;
#[cfg(feature = "torch")]
pub mod train;
