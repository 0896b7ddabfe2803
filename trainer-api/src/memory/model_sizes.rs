//! A model's sizes, from config.json and the headers of its weight files; no tensor is read.

use std::path::{Path, PathBuf};

use rondo_base::architecture::{self, Architecture, ModelClass, Orientation};
use rondo_base::gguf::{self, BlockKind, GgufError};
use rondo_base::gguf_names;
use rondo_base::{is_gguf, is_weights};
use rondo_proto::manifest::{self, ManifestError};
use rondo_proto::v1;
use serde_json::Value;

/// Why a model's sizes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ModelSizesError {
    /// A file or folder cannot be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// config.json lacks a size, or names a model that is not supported.
    #[error("{}: {problem}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A weights file.
    #[error(transparent)]
    Weights(#[from] ManifestError),
    /// A GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
}

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
    /// A file that cannot be read, a config without the sizes, a model that is not supported.
    pub fn read(path: &Path) -> Result<Self, ModelSizesError> {
        match is_gguf(path) {
            true => Self::of_gguf(path),
            false => Self::of_folder(path),
        }
    }

    fn of_gguf(path: &Path) -> Result<Self, ModelSizesError> {
        let header = gguf::read(path)?;
        let config = gguf_names::config(&header)?;
        let tensors = header.tensors.iter().map(|tensor| {
            let name = gguf_names::hugging_face(&tensor.name).unwrap_or_else(|| tensor.name.clone());
            let packed = !matches!(tensor.kind, BlockKind::F32 | BlockKind::F16 | BlockKind::Bf16);
            (name, tensor.shape.clone(), tensor.bytes, packed)
        });
        let mut sizes = Self::new(&config, path, tensors.collect())?;
        // The header is the words and their merges, and little else.
        sizes.tokenizer = header.tensors.iter().map(|tensor| tensor.offset).min().unwrap_or(0);
        Ok(sizes)
    }

    fn of_folder(path: &Path) -> Result<Self, ModelSizesError> {
        let config_path = path.join("config.json");
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ModelSizesError::Io { path, source }
        };
        let text = std::fs::read(&config_path).map_err(io(&config_path))?;
        let config: Value = serde_json::from_slice(&text)
            .map_err(|error| ModelSizesError::Config { path: config_path.clone(), problem: error.to_string() })?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(io(path))? {
            let file = entry.map_err(io(path))?.path();
            if file.file_name().and_then(|name| name.to_str()).is_some_and(is_weights) {
                files.push(file);
            }
        }
        files.sort();
        let mut tensors = Vec::new();
        for file in &files {
            for entry in manifest::read(file)? {
                let width = match entry.dtype.as_str() {
                    "F64" | "I64" | "U64" => 8,
                    "F16" | "BF16" | "I16" | "U16" => 2,
                    "I8" | "U8" | "BOOL" => 1,
                    _ => 4,
                };
                let bytes = entry.numbers() as u64 * width;
                tensors.push((entry.name.clone(), entry.shape.iter().map(|&n| n as u64).collect(), bytes, false));
            }
        }
        let mut sizes = Self::new(&config, &config_path, tensors)?;
        sizes.tokenizer = std::fs::metadata(path.join("tokenizer.json")).map_or(0, |file| file.len());
        Ok(sizes)
    }

    /// From a config as Hugging Face writes it and tensors as (name, shape, bytes, packed).
    fn new(config: &Value, path: &Path, tensors: Vec<(String, Vec<u64>, u64, bool)>) -> Result<Self, ModelSizesError> {
        let refuse = |problem: String| ModelSizesError::Config { path: path.to_owned(), problem };
        let find = |keys: &[&str]| keys.iter().find_map(|key| config.get(key).and_then(Value::as_u64));
        let need = |keys: &[&str]| {
            find(keys)
                .filter(|size| *size > 0)
                .ok_or_else(|| refuse(format!("has no positive number under {:?}", keys[0])))
        };
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let architecture = architecture::find(model_type).ok_or_else(|| {
            refuse(format!("model_type {model_type:?} is not supported; supported are: {}", architecture::supported()))
        })?;
        let hidden = need(&["hidden_size", "dim", "n_embd"])?;
        let heads = need(&["num_attention_heads", "n_heads", "n_head"])?;
        let inner = find(&["intermediate_size", "hidden_dim", "n_inner"]).unwrap_or(4 * hidden);
        let head_size = find(&["head_dim"]).unwrap_or(hidden / heads);
        let layer_kind = match architecture.model_class {
            ModelClass::Bert | ModelClass::Roberta | ModelClass::DistilBert => LayerKind::Encoder,
            ModelClass::Gpt2 => LayerKind::Decoder,
            ModelClass::Llama => LayerKind::GatedDecoder,
        };
        let mut found = Vec::new();
        let mut linears = std::collections::BTreeMap::new();
        // A tied vocabulary matrix may have been written out; it is the words' matrix all the same.
        let tied = config.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false);
        for (name, shape, bytes, packed) in tensors {
            if tied && name == "lm_head.weight" {
                continue;
            }
            let place = linear(architecture, &name, &shape);
            let linear = place.is_some();
            linears.extend(place);
            found.push(TensorSize { name, numbers: shape.iter().product(), bytes, linear, packed });
        }
        Ok(Self {
            architecture: model_type.to_owned(),
            layer_kind,
            hidden,
            layers: need(&["num_hidden_layers", "n_layers", "n_layer"])?,
            query: heads * head_size,
            inner,
            vocabulary: need(&["vocab_size"])?,
            max_positions: find(&["max_position_embeddings", "n_positions"]).unwrap_or(u64::from(u32::MAX)),
            tokenizer: 0,
            tensors: found,
            linears: linears.into_values().collect(),
        })
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

fn linear(architecture: &Architecture, name: &str, shape: &[u64]) -> Option<((u32, usize), v1::LinearLayer)> {
    let name = architecture.canonical(name);
    let module = name.strip_suffix(".weight")?;
    let place = architecture.linear(module)?;
    let [rows, columns] = shape else { return None };
    let rows = u32::try_from(*rows).ok()?;
    let columns = u32::try_from(*columns).ok()?;
    let (out_features, in_features) = match architecture.orientation {
        Orientation::OutIn => (rows, columns),
        Orientation::InOut => (columns, rows),
    };
    Some((place, v1::LinearLayer { name: module.to_owned(), out_features, in_features }))
}
