//! Whole runs, simulated from lists of operations: clients that join, train, die and come back,
//! uploads that arrive twice, late or wrong, lost replies, crashes before and after a commit,
//! restarts, clock jumps, and operators who pause, cancel and revoke. After every step the same
//! invariants are checked ([`audit`]), and every run with enough healthy clients must end.
//!
//! Client k's update is worth 2^k, so an update that counts twice, or counts without being
//! recorded, shows in the sum. Everything here is deterministic: a failing list of operations that
//! proptest prints goes into [`reproduction`].

#![allow(clippy::unwrap_used, reason = "this is all test code")]

mod accounting;
mod audit;
mod central;
mod comparing;
mod device;
mod disclosure;
mod executor;
mod generate;

mod lifecycle;
mod measuring;
mod methods;
mod model;
mod privacy;
mod ranks;
mod reproduction;
mod run;
mod start_adapter;
mod steering;
mod uploads;
mod world;
