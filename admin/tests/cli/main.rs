//! The command line from outside: help, exit codes, offline commands,
//! and online ones against a coordinator in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod fake;
mod help;
mod offline;
mod online;
mod privacy;
mod program;
mod renewal;
