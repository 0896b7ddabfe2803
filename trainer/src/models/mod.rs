//! Transformers read from Hugging Face folders.
//!
//! One file per architecture. A model knows its linear layers by name and runs each through
//! [`Linears::forward`], which adds whatever an adapter attaches there; it knows nothing of methods.

mod activation;
mod bert;
mod blocks;
mod cache;
mod distilbert;
mod encoder;
mod gpt2;
mod linears;
mod llama;
mod norm;
mod packed;
mod roberta;
mod rope;
mod settings;
mod weight;
mod weights;

use std::path::{Path, PathBuf};

use rondo_base::gguf::{self, GgufError};
use rondo_base::gguf_names;
use rondo_base::is_gguf;
use rondo_proto::run_file::Quantise;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::adapters::Adapters;
use crate::batch::Batch;
use crate::error::TrainerError;

pub use blocks::{Attention, RmsNorm};
pub use cache::LayerCache;
pub use encoder::Encoder;
pub use gpt2::Gpt2;
pub use linears::Linears;
pub use llama::Llama;
pub use packed::PackedMatrix;
pub use weight::{Packed, Weight};
pub use weights::WeightFiles;

/// A frozen transformer: token ids in, one state per token out, layer by layer, so that a caller may keep the states
/// between the layers and run each layer again for its gradients.
pub trait Transformer {
    /// Length of a token's state.
    fn hidden_size(&self) -> usize;

    /// Longest input in tokens.
    fn max_positions(&self) -> usize;

    /// The linear layers its output depends on; these may be adapted.
    fn linears(&self) -> &Linears;

    /// Number of layers.
    fn layers(&self) -> usize;

    /// What goes into the first layer, packed: `[tokens, hidden_size]`, in the order of [`Batch`].
    fn embed(&self, batch: &Batch) -> Result<Tensor, TrainerError>;

    /// One layer, `[tokens, hidden_size]` to the same. With a `cache`, a language model attends to what it holds as well
    /// and appends its own keys and values; encoders have no use for one.
    fn layer(
        &self,
        number: usize,
        x: &Tensor,
        batch: &Batch,
        adapters: &Adapters,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor, TrainerError>;

    /// What follows the last layer, such as a final norm.
    fn finish(&self, x: &Tensor) -> Result<Tensor, TrainerError> {
        Ok(x.shallow_clone())
    }

    /// The matrix from states to the vocabulary; `None` for encoders.
    fn vocabulary(&self) -> Option<&Weight> {
        None
    }

    /// Token states of a batch, all layers: `[tokens, hidden_size]`.
    fn forward(&self, batch: &Batch, adapters: &Adapters) -> Result<Tensor, TrainerError> {
        let mut x = self.embed(batch)?;
        for number in 0..self.layers() {
            x = self.layer(number, &x, batch, adapters, None)?;
        }
        self.finish(&x)
    }
}

/// Why a base model was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read.
    #[error("{}", unread(.path, .source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is not what its name promises.
    #[error("{}: {problem}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// config.json asks for something that is not built.
    #[error("{}: `{key}` is {value}; supported: {supported}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The configuration key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What would work.
        supported: &'static str,
    },
    /// The weights lack a tensor.
    #[error("{}: its weights lack the tensor {name:?}; is the model complete?", .dir.display())]
    Missing {
        /// The model's folder or file.
        dir: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A tensor's shape does not follow from config.json.
    #[error("{}: tensor {name:?} has shape {found:?}, config.json asks for {expected:?}", .dir.display())]
    Shape {
        /// The model's folder.
        dir: PathBuf,
        /// The tensor's name.
        name: String,
        /// By config.json.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// Tensors that this architecture does not have: the folder holds another model than config.json says.
    #[error("{}: tensors that a {architecture:?} model does not have: {}", .dir.display(), .names.join(", "))]
    Unknown {
        /// The model's folder.
        dir: PathBuf,
        /// The `model_type`.
        architecture: &'static str,
        /// Their names.
        names: Vec<String>,
    },
    /// A GGUF file cannot be used.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// libtorch could not take the numbers.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

fn unread(path: &Path, source: &std::io::Error) -> String {
    let path = path.display();
    match source.kind() {
        // Also said of a folder that lacks something, in words of its own; the system's words say nothing more.
        std::io::ErrorKind::NotFound if source.raw_os_error().is_some() => {
            format!(
                "{path} is not there; a model is a folder with config.json, tokenizer.json and .safetensors files, or one .gguf file"
            )
        }
        _ => format!("{path}: {source}"),
    }
}

/// The values of `model_type` that [`load`] takes.
const SUPPORTED: &str = "\"bert\", \"roberta\", \"xlm-roberta\", \"camembert\", \"distilbert\", \"gpt2\", \"llama\", \"mistral\", \
    \"qwen2\", \"qwen3\"";

/// Reads the model at a path, weights converted to `kind`: a Hugging Face folder by the `model_type` of its config.json,
/// or a .gguf file, whose blocks stay packed.
pub fn load(path: &Path, device: Device, kind: Kind) -> Result<Box<dyn Transformer>, ModelError> {
    load_as(path, device, kind, Quantise::None)
}

/// The same with linear layers' weights packed as the run asks. What a GGUF file has in blocks stays in these.
pub fn load_as(
    path: &Path,
    device: Device,
    kind: Kind,
    quantise: Quantise,
) -> Result<Box<dyn Transformer>, ModelError> {
    load_held(path, device, kind, quantise, false)
}

/// The same; `unpacked` has every packed matrix unpacked as it is loaded and held as numbers: the values of the packed
/// form, in the memory of the plain one. For comparison.
pub fn load_held(
    path: &Path,
    device: Device,
    kind: Kind,
    quantise: Quantise,
    unpacked: bool,
) -> Result<Box<dyn Transformer>, ModelError> {
    if is_gguf(path) {
        let header = gguf::read(path)?;
        let config = gguf_names::config(&header)?;
        let head_size = config.get("head_dim").and_then(Value::as_u64).unwrap_or_default();
        let weights = WeightFiles::open_gguf(&header, head_size as usize, device, kind)?;
        return Ok(Box::new(Llama::load(weights.quantised(quantise).unpacked(unpacked), path, &config)?));
    }
    let dir = path;
    let path = dir.join("config.json");
    let text = std::fs::read(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
    let config: Value = serde_json::from_slice(&text)
        .map_err(|error| ModelError::Malformed { path: path.clone(), problem: error.to_string() })?;
    match config.get("model_type").and_then(Value::as_str) {
        Some(family) if quantise != Quantise::None && !llama::FAMILY.contains(&family) => {
            Err(ModelError::Unsupported {
                path,
                key: "model_type",
                value: format!("{family:?} with train.quantise"),
                supported: "train.quantise with the Llama family",
            })
        }
        Some("bert") => Ok(Box::new(bert::load(dir, &config, device, kind)?)),
        Some("roberta" | "xlm-roberta" | "camembert") => Ok(Box::new(roberta::load(dir, &config, device, kind)?)),
        Some("distilbert") => Ok(Box::new(distilbert::load(dir, &config, device, kind)?)),
        Some("gpt2") => Ok(Box::new(Gpt2::load(dir, &config, device, kind)?)),
        Some(family) if llama::FAMILY.contains(&family) => {
            let weights = WeightFiles::open(dir, "", device, kind)?;
            Ok(Box::new(Llama::load(weights.quantised(quantise).unpacked(unpacked), &path, &config)?))
        }
        other => Err(ModelError::Unsupported {
            path,
            key: "model_type",
            value: other.map_or_else(|| "absent".to_owned(), |name| format!("{name:?}")),
            supported: SUPPORTED,
        }),
    }
}
