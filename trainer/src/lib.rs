//! The libtorch trainer: the only part of Rondo that knows libtorch.
//!
//! ```text
//! texts -- tokens --> batch --> models (each linear layer + adapters) --> head --> loss --> optim
//! ```
//! A [`LibtorchTrainer`] takes [`Work`] as plain data and gives plain data back. libtorch's tensors
//! are not `Sync`, so it is made and used on one thread. Equal work gives equal bits on one machine
//! and thread count.

pub mod adapters;
pub mod batch;
pub mod device;
pub mod environment;
pub mod error;
pub mod generate;
pub mod head;
pub mod logits;
pub mod measure;
pub mod models;
pub mod neighbours;
pub mod packed;
pub mod session;
pub mod step;
pub mod tasks;
pub mod text;
pub mod train;
mod trainer;

pub use trainer::{LibtorchTrainer, Loaded, maker};
