//! Tests of the commands that work without a coordinator.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod speaking;
mod support;
mod training;
