//! What the engine does with each input, by who sends it.

mod clients;
mod poll;
mod reports;
mod runs;

pub use reports::{Clipped, ExpectedUpload};
