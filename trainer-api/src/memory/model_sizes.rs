//! A model's sizes, from config.json and the headers of its weight files; no tensor is read.

use std::collections::BTreeSet;
use std::path::Path;

use rondo_base::architecture::ModelClass;
use rondo_base::checkpoint::{Checkpoint, NumberFormat, StoredTensor};
use rondo_base::{BaseError, TOKENIZER_FILE};
use rondo_proto::v1;

/// Why a model's sizes could not be read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ModelSizesError(#[from] BaseError);

/// What a layer is built like; decides what its tape holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// BERT and its relatives: norms behind the blocks, one inner tensor.
    Encoder,
    /// GPT-2: norms before the blocks, one inner tensor.
    Decoder,
    /// Llama and its relatives: norms before the blocks, two inner matrices of which one gates the
    /// other.
    GatedDecoder,
}

/// One tensor of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSize {
    /// As the file calls it.
    pub name: String,
    /// Numbers in it.
    pub numbers: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// A linear layer's weight; only these are packed to NF4.
    pub linear: bool,
    /// Stays in the file's blocks in memory, to be unpacked at each use.
    pub packed: bool,
}

/// The sizes of a base model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSizes {
    /// The `model_type`.
    pub architecture: String,
    /// How a layer is built.
    pub layer_kind: LayerKind,
    /// Length of a token's state.
    pub hidden: u64,
    /// Layers.
    pub layers: u64,
    /// Numbers of a token's query over all heads.
    pub query: u64,
    /// Width of the feed-forward part.
    pub inner: u64,
    /// Words.
    pub vocabulary: u64,
    /// Longest input.
    pub max_positions: u64,
    /// Bytes that describe the tokenizer, in a file of its own or in a GGUF file's header.
    pub tokenizer: u64,
    /// All tensors.
    pub tensors: Vec<TensorSize>,
    /// The linear layers that may be adapted, in the base's order.
    pub linears: Vec<v1::LinearLayer>,
}

impl ModelSizes {
    /// Reads the sizes of a model folder, or of a .gguf file.
    ///
    /// # Errors
    /// As of [`Checkpoint::open`].
    pub fn read(path: &Path) -> Result<Self, ModelSizesError> {
        Ok(Self::of(&Checkpoint::open(path)?))
    }

    fn of(checkpoint: &Checkpoint) -> Self {
        let config = &checkpoint.config;
        let architecture = config.architecture();
        let layer_kind = match architecture.model_class {
            ModelClass::Bert | ModelClass::Roberta | ModelClass::DistilBert => LayerKind::Encoder,
            ModelClass::Gpt2 => LayerKind::Decoder,
            ModelClass::Llama => LayerKind::GatedDecoder,
        };
        let linears = checkpoint.linears();
        let weights: BTreeSet<String> = linears.iter().map(|linear| format!("{}.weight", linear.name)).collect();
        let size = |tensor: &StoredTensor| TensorSize {
            name: tensor.name.clone(),
            numbers: tensor.numbers(),
            bytes: tensor.bytes,
            linear: weights.contains(&tensor.name),
            packed: matches!(tensor.format, NumberFormat::Blocks(_)),
        };
        let tokenizer = match &checkpoint.gguf {
            // The header is the words and their merges, and little else.
            Some(header) => header.tensors.iter().map(|tensor| tensor.offset).min().unwrap_or(0),
            None => std::fs::metadata(checkpoint.path.join(TOKENIZER_FILE)).map_or(0, |file| file.len()),
        };
        Self {
            architecture: architecture.model_type.to_owned(),
            layer_kind,
            hidden: config.hidden() as u64,
            layers: config.layers() as u64,
            query: config.query() as u64,
            inner: config.inner() as u64,
            vocabulary: config.vocabulary() as u64,
            max_positions: config.max_positions() as u64,
            tokenizer,
            tensors: checkpoint.tensors.iter().map(size).collect(),
            linears,
        }
    }

    /// True for models with a vocabulary tensor.
    pub fn is_language(&self) -> bool {
        self.layer_kind != LayerKind::Encoder
    }

    /// Takes every tensor as numbers: what the model is when its file's blocks are unpacked at
    /// load.
    pub fn unpack(&mut self) {
        self.tensors.iter_mut().for_each(|tensor| tensor.packed = false);
    }

    /// What a job needs to know of the base, without digests: to resolve targets, not to register
    /// it.
    pub fn base(&self, name: &str) -> v1::BaseModel {
        v1::BaseModel {
            name: name.to_owned(),
            architecture: self.architecture.clone(),
            parameters: self.tensors.iter().map(|tensor| tensor.numbers).sum(),
            hidden_size: u32::try_from(self.hidden).unwrap_or(u32::MAX),
            max_positions: u32::try_from(self.max_positions).unwrap_or(u32::MAX),
            linears: self.linears.clone(),
            ..Default::default()
        }
    }
}
