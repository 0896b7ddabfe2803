//! One file per command: its arguments, whose doc comments are its help, and what it does.

#[cfg(feature = "torch")]
pub mod evaluate;
pub mod join;
#[cfg(feature = "torch")]
mod offline;
#[cfg(feature = "torch")]
pub mod plan;
pub mod run;
#[cfg(feature = "torch")]
pub mod train;
