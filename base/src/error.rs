//! Why a model is refused as a base.

use std::io;
use std::path::{Path, PathBuf};

use rondo_proto::manifest::ManifestError;

use crate::gguf::GgufError;

/// Why a model folder or file cannot serve as a base, or is not the one it should be.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// A file or the folder cannot be read.
    #[error("{}", unread(.path, .source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that a base needs is not there.
    #[error("{dir} holds no {file}; a base needs config.json, tokenizer.json and at least one .safetensors file, or is one .gguf file", dir = .dir.display())]
    MissingFile {
        /// The folder.
        dir: PathBuf,
        /// What is missing.
        file: String,
    },
    /// config.json or an index is no JSON, or a value in it is missing or cannot be.
    #[error("{path}: {problem}", path = .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// config.json asks for something that is not computed.
    #[error("{path}: `{key}` is {value}; supported: {supported}", path = .path.display())]
    Unsupported {
        /// The config file, or the .gguf file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What would work.
        supported: String,
    },
    /// The weights lack a tensor.
    #[error("{dir}: its weights lack the tensor {name:?}; is the model complete?", dir = .dir.display())]
    Missing {
        /// The model's folder or file.
        dir: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A tensor's shape does not follow from config.json.
    #[error("{dir}: tensor {name:?} has shape {found:?}, config.json asks for {expected:?}", dir = .dir.display())]
    Shape {
        /// The model's folder or file.
        dir: PathBuf,
        /// The tensor's name.
        name: String,
        /// By config.json.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// Tensors that are neither part of the model nor a head: the folder holds another model than
    /// config.json says.
    #[error("{dir}: tensors that a {architecture:?} model does not have: {names}", dir = .dir.display())]
    Unknown {
        /// The model's folder or file.
        dir: PathBuf,
        /// The `model_type`.
        architecture: &'static str,
        /// Their names.
        names: String,
    },
    /// A weights file is damaged.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A .gguf file is damaged or not supported.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The weights do not fit the config.
    #[error("{dir}: {problem}", dir = .dir.display())]
    Weights {
        /// The folder.
        dir: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The folder or file is not the registered base: one file differs.
    #[error("{dir} is not base {base:?}: {file} {problem}", dir = .dir.display())]
    Differs {
        /// The folder, or the .gguf file.
        dir: PathBuf,
        /// Name of the base.
        base: String,
        /// The file that differs.
        file: String,
        /// How.
        problem: String,
    },
    /// A target pattern matches no linear layer.
    #[error("target {pattern:?} matches no linear layer of base {base:?}{}; there are: {there_are}", .nearest.as_ref().map(|near| format!(", did you mean {near:?}?")).unwrap_or_default())]
    NoTarget {
        /// The pattern.
        pattern: String,
        /// Name of the base.
        base: String,
        /// The name most like it.
        nearest: Option<String>,
        /// The names there are, without layer numbers.
        there_are: String,
    },
}

fn unread(path: &Path, source: &io::Error) -> String {
    let path = path.display();
    match source.kind() {
        io::ErrorKind::NotFound => format!(
            "{path} is not there; a base is a folder with config.json, tokenizer.json and .safetensors files, or one .gguf \
             file"
        ),
        _ => format!("cannot read {path}: {source}"),
    }
}
