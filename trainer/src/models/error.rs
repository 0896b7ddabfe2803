//! Why a base model cannot be loaded.

use std::path::{Path, PathBuf};

use rondo_base::gguf::GgufError;

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
    /// A file does not have the format that its name says.
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
        supported: String,
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
    /// Tensors that this architecture does not have: the folder holds another model than
    /// config.json says.
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
        // A folder that lacks something has an error of this kind with its own message; the
        // system's says nothing more.
        std::io::ErrorKind::NotFound if source.raw_os_error().is_some() => {
            format!(
                "{path} is not there; a model is a folder with config.json, tokenizer.json and .safetensors files, or one .gguf file"
            )
        }
        _ => format!("{path}: {source}"),
    }
}
