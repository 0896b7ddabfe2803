//! Tests of the libtorch trainer. Numbers of PyTorch and Hugging Face's transformers come from `tests/goldens/`.
#![cfg(feature = "torch")]

mod adapters;
mod encoder;
mod refusals;
mod support;
mod training;
mod warm_up;
