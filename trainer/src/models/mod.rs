//! Transformers read from Hugging Face folders.
//!
//! One file per model class. A model knows its linear layers by name and runs each through
//! [`Linears::forward`], which asks a [`LinearHook`] what to add there. Models know nothing of
//! adapters and methods.

mod activation;
mod blocks;
mod cache;
mod encoder;
mod encoder_names;
mod error;
mod gpt2;
mod hook;
mod linears;
mod llama;
mod load;
mod norm;
mod packed;
mod rope;
mod transformer;
mod weight;
mod weights;

pub use blocks::{Attention, RmsNorm};
pub use cache::LayerCache;
pub use encoder::Encoder;
pub use error::ModelError;
pub use gpt2::Gpt2;
pub use hook::LinearHook;
pub use linears::Linears;
pub use llama::Llama;
pub use load::{LoadOptions, load};
pub use packed::PackedMatrix;
pub use transformer::Transformer;
pub use weight::{Packed, Weight};
pub use weights::{PackedWeights, WeightFiles};
