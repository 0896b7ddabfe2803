//! A model's files, opened and checked: every tensor that its config asks for is there in the right
//! shape, and what is more is a head that can be passed over. Whoever registers, plans, loads or
//! compares a model goes through here, so what one of them accepts all of them do.
//!
//! Reads headers alone, and the vocabulary matrix where config.json ties it and the files hold one.

mod check;
mod folder;
mod single_file;

use std::path::{Path, PathBuf};

use rondo_proto::v1;

use crate::config::ModelConfig;
use crate::error::BaseError;
use crate::files::is_gguf;
use crate::gguf::{BlockKind, Header};

/// A model's files behind their checked headers.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder, or the one file.
    pub path: PathBuf,
    /// Sizes and choices. `tied` is false where the files hold a vocabulary matrix of their own,
    /// whatever config.json says: that is how transformers 5 loads them.
    pub config: ModelConfig,
    /// The weight files.
    pub files: Vec<PathBuf>,
    /// The tensors that the model computes with, sorted by name.
    pub tensors: Vec<StoredTensor>,
    /// The header of a .gguf file.
    pub gguf: Option<Header>,
    /// Whether the files hold a vocabulary matrix of their own that config.json ties to the
    /// embedding.
    pub has_own_head: bool,
    remarks: Vec<String>,
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// By [`crate::architecture::Architecture::tensor`], whatever the file calls it.
    pub name: String,
    /// Place of its file in [`Checkpoint::files`].
    pub file: usize,
    /// Where its bytes begin, from the start of the file.
    pub offset: u64,
    /// How many bytes it takes.
    pub bytes: u64,
    /// As it lies in the file; for a matrix rows and columns.
    pub shape: Vec<usize>,
    /// How its numbers are written.
    pub format: NumberFormat,
}

impl StoredTensor {
    /// How many numbers it holds.
    pub fn numbers(&self) -> u64 {
        self.shape.iter().fold(1, |product, size| product.saturating_mul(*size as u64))
    }
}

/// How a tensor's numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberFormat {
    /// 64 bits.
    F64,
    /// 32 bits.
    F32,
    /// 16 bits, IEEE.
    F16,
    /// The upper half of 32 bits.
    Bf16,
    /// Packed, as GGML does it.
    Blocks(BlockKind),
}

impl Checkpoint {
    /// Opens the model at a path: a Hugging Face folder, or a .gguf file.
    ///
    /// # Errors
    /// A file is missing, cannot be read, is empty, a Git LFS pointer or damaged; config.json says
    /// what is not supported or cannot be; tensors are missing, of another shape, or belong to
    /// another model.
    pub fn open(path: &Path) -> Result<Self, BaseError> {
        if is_gguf(path) { single_file::open(path) } else { folder::open(path) }
    }

    /// What was passed over and what the files say against config.json, in one line for people;
    /// nothing where there is nothing to say.
    pub fn remark(&self) -> Option<String> {
        let said = self.remarks.join("; ");
        (!said.is_empty()).then(|| format!("{}: {said}", self.path.display()))
    }

    /// The linear layers that may be adapted: by layer number, then in the order of the
    /// architecture's table.
    pub fn linears(&self) -> Vec<v1::LinearLayer> {
        let architecture = self.config.architecture();
        let mut found = std::collections::BTreeMap::new();
        for tensor in &self.tensors {
            let Some(module) = tensor.name.strip_suffix(".weight") else { continue };
            let (Some(place), [rows, columns]) = (architecture.linear(module), tensor.shape.as_slice()) else {
                continue;
            };
            let (out, inp) = architecture.sizes([*rows, *columns]);
            let (Ok(out_features), Ok(in_features)) = (u32::try_from(out), u32::try_from(inp)) else { continue };
            found.insert(place, v1::LinearLayer { name: module.to_owned(), out_features, in_features });
        }
        found.into_values().collect()
    }

    /// Numbers in all of its tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.numbers()))
    }
}

#[cfg(test)]
mod tests;
