//! Tensor files (safetensors): one tensor at a time in and out, never a whole file in memory.

mod reader;
mod writer;

use std::path::{Path, PathBuf};

use rondo_proto::manifest::ManifestError;

pub use reader::TensorFile;
pub use writer::{TensorWriter, write};

/// Numbers converted at a time, so that neither reading nor writing needs a second copy of a
/// tensor.
const BLOCK: usize = 16 << 10;

/// Why a tensor file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system says no.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not a sound safetensors file.
    #[error("{path} is not a sound safetensors file: {problem}", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A tensor that was asked for is not in the file.
    #[error("{path} has no tensor `{name}`", path = .path.display())]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor was written in another order or shape than announced (a fault of the caller).
    #[error("{path}: tensor `{name}` was written against the announced header: {problem}", path = .path.display())]
    Order {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What differs.
        problem: String,
    },
}

impl From<ManifestError> for FileError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Io { path, source } => Self::Io { path, source },
            ManifestError::Invalid { path, problem } => Self::Format { path, problem },
        }
    }
}

impl FileError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), problem: problem.into() }
    }
}
