//! Tests of the commands that work without a coordinator.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

#[path = "../../../methods/tests/suite/questions.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the suite of the methods")]
mod questions;
mod speaking;
mod support;
mod training;
