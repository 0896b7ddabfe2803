//! What config.json says of a model, checked once for everybody: registration, the memory plan and
//! the trainer. What the file leaves out has the default of transformers 5 for the architecture.

mod encoder;
mod gpt2;
mod llama;
mod rope;
mod values;

pub use encoder::EncoderConfig;
pub use gpt2::Gpt2Config;
pub use llama::LlamaConfig;
pub use rope::{RopeConfig, RopeScaling};
pub use values::ConfigValues;

use crate::architecture::{self, ARCHITECTURES, Architecture, ModelClass};
use crate::error::BaseError;

/// The function between the two linear layers of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * Phi(x)` with the exact normal distribution function.
    Gelu,
    /// The same with the tanh approximation (Hendrycks and Gimpel 2016).
    GeluTanh,
    /// `max(x, 0)`
    Relu,
}

/// Heads that share a token's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// How many.
    pub number: usize,
    /// Numbers in each.
    pub size: usize,
}

/// Sizes and choices of a model, by what computes it.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelConfig {
    /// BERT, RoBERTa, DistilBERT and their relatives.
    Encoder(EncoderConfig),
    /// GPT-2.
    Gpt2(Gpt2Config),
    /// Llama and its relatives.
    Llama(LlamaConfig),
}

impl ModelConfig {
    /// Reads a config by its `model_type`.
    ///
    /// # Errors
    /// An architecture that is not supported; a value of a wrong kind, out of range, or one that
    /// asks for what is not computed. Key and file are named.
    pub fn read(values: &ConfigValues) -> Result<Self, BaseError> {
        let known = architecture_of(values)?;
        Ok(match known.model_class {
            ModelClass::Bert | ModelClass::Roberta | ModelClass::DistilBert => {
                Self::Encoder(EncoderConfig::read(values, known)?)
            }
            ModelClass::Gpt2 => Self::Gpt2(Gpt2Config::read(values, known)?),
            ModelClass::Llama => Self::Llama(LlamaConfig::read(values, known)?),
        })
    }

    /// Its row of the table of architectures.
    pub fn architecture(&self) -> &'static Architecture {
        match self {
            Self::Encoder(config) => config.architecture,
            Self::Gpt2(config) => config.architecture,
            Self::Llama(config) => config.architecture,
        }
    }

    /// Length of a token's state.
    pub fn hidden(&self) -> usize {
        match self {
            Self::Encoder(config) => config.hidden,
            Self::Gpt2(config) => config.hidden,
            Self::Llama(config) => config.hidden,
        }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        match self {
            Self::Encoder(config) => config.layers,
            Self::Gpt2(config) => config.layers,
            Self::Llama(config) => config.layers,
        }
    }

    /// Longest input in tokens.
    pub fn max_positions(&self) -> usize {
        match self {
            Self::Encoder(config) => config.positions - config.first_position,
            Self::Gpt2(config) => config.positions,
            Self::Llama(config) => config.max_positions,
        }
    }

    /// Number of tokens.
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::Encoder(config) => config.vocabulary,
            Self::Gpt2(config) => config.vocabulary,
            Self::Llama(config) => config.vocabulary,
        }
    }

    /// Numbers of a token's query over all heads.
    pub fn query(&self) -> usize {
        match self {
            Self::Encoder(config) => config.heads.number * config.heads.size,
            Self::Gpt2(config) => config.heads.number * config.heads.size,
            Self::Llama(config) => config.heads * config.head_size,
        }
    }

    /// Width of the feed-forward part.
    pub fn inner(&self) -> usize {
        match self {
            Self::Encoder(config) => config.inner,
            Self::Gpt2(config) => config.inner,
            Self::Llama(config) => config.inner,
        }
    }

    /// Whether config.json says that the vocabulary matrix is the embedding; `None` for encoders,
    /// which have none.
    pub(crate) fn tied(&mut self) -> Option<&mut bool> {
        match self {
            Self::Encoder(_) => None,
            Self::Gpt2(config) => Some(&mut config.tied),
            Self::Llama(config) => Some(&mut config.tied),
        }
    }
}

fn architecture_of(values: &ConfigValues) -> Result<&'static Architecture, BaseError> {
    let supported = || {
        let names: Vec<String> = ARCHITECTURES.iter().map(|known| format!("{:?}", known.model_type)).collect();
        names.join(", ")
    };
    let Some(value) = values.get("model_type") else {
        return Err(values.refuse(format!("lacks `model_type`; supported: {}", supported())));
    };
    let known = value.as_str().and_then(architecture::find);
    known.ok_or_else(|| values.unsupported("model_type", value, &supported()))
}

/// The function under a key.
fn activation(values: &ConfigValues, key: &'static str, default: Activation) -> Result<Activation, BaseError> {
    let Some(value) = values.get(key) else { return Ok(default) };
    match value.as_str() {
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some("relu") => Ok(Activation::Relu),
        _ => Err(values.unsupported(key, value, "\"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\", \"relu\"")),
    }
}

/// As many heads as `key` says, which share a token's state evenly; its key and size are given.
fn heads(values: &ConfigValues, key: &str, default: usize, (hidden, size): (&str, usize)) -> Result<Heads, BaseError> {
    let number = values.count(key, default, values::MAX_WIDTH)?;
    match size.is_multiple_of(number) {
        true => Ok(Heads { number, size: size / number }),
        false => Err(values.refuse(format!("`{hidden}` {size} is no multiple of {number} heads"))),
    }
}

/// Refuses packed weights.
fn unpacked(values: &ConfigValues) -> Result<(), BaseError> {
    values.only("quantization_config", &[], "none; unpacked weights, or a GGUF file")
}

#[cfg(test)]
mod tests;
