//! Tests of the libtorch trainer. Numbers of PyTorch and Hugging Face's transformers come from
//! `tests/goldens/`.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod adapters;
mod architectures;
mod dp_audit;
mod dp_sgd;
mod encoder;
mod generation;
mod language_rounds;
mod language_tasks;
mod llama;
mod llama_files;
mod llama_training;
mod offsets;
mod paid_warm_up;
mod per_text;
#[path = "../../../methods/tests/suite/questions.rs"]
#[allow(unreachable_pub, reason = "shared with the suite of the methods")]
mod questions;
mod reading;
mod refusals;
mod step;
mod step_packed;
mod support;
mod training;
mod warm_up;
