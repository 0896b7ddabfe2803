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
    /// config.json is no JSON or lacks a key.
    #[error("{path}: {problem}", path = .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A model of a family that is not supported.
    #[error("{path}: model_type {model_type:?} is not supported; supported are: {supported}", path = .path.display())]
    Architecture {
        /// The config file.
        path: PathBuf,
        /// What it says.
        model_type: String,
        /// What is known.
        supported: String,
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
