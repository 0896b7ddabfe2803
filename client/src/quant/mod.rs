//! Quantised forms that are made here, at load, from weights in full precision.

pub mod nf4;
