//! Why a base model cannot be loaded.

use std::path::PathBuf;

use rondo_base::BaseError;

/// Why a base model was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read.
    #[error("{}: {source}", .path.display())]
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
    /// The model's files were refused before a tensor was read.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// libtorch could not take the numbers.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
