//! One .gguf file: sizes, tokenizer and weights in one.

use std::collections::BTreeMap;
use std::path::Path;

use super::check::check;
use super::{Checkpoint, NumberFormat, StoredTensor};
use crate::config::{ConfigValues, ModelConfig, RopeScaling};
use crate::error::BaseError;
use crate::gguf::{self, BlockKind};
use crate::gguf_names::{self, ROPE_FACTORS};

pub(super) fn open(path: &Path) -> Result<Checkpoint, BaseError> {
    let header = gguf::read(path)?;
    let config = ModelConfig::read(&ConfigValues::of(path, gguf_names::config(&header)?)?)?;
    let mut tensors = BTreeMap::new();
    for tensor in &header.tensors {
        let stored = StoredTensor {
            // A tensor without a name at Hugging Face keeps its own, to be refused by it.
            name: gguf_names::hugging_face(&tensor.name).unwrap_or_else(|| tensor.name.clone()),
            file: 0,
            offset: tensor.offset,
            bytes: tensor.bytes,
            shape: tensor.shape.iter().map(|&size| usize::try_from(size).unwrap_or(usize::MAX)).collect(),
            format: match tensor.kind {
                BlockKind::F32 => NumberFormat::F32,
                BlockKind::F16 => NumberFormat::F16,
                BlockKind::Bf16 => NumberFormat::Bf16,
                blocks => NumberFormat::Blocks(blocks),
            },
        };
        tensors.insert(stored.name.clone(), stored);
    }
    let factors = tensors.remove(ROPE_FACTORS);
    let (mut tensors, remarks) = check(path, &config, tensors)?;
    if let ModelConfig::Llama(llama) = &config
        && llama.rope.scaling == RopeScaling::Factors
        && let Some(factors) = factors
    {
        if factors.shape != [llama.head_size / 2] {
            let (dir, expected) = (path.to_owned(), vec![llama.head_size / 2]);
            return Err(BaseError::Shape { dir, name: factors.name, expected, found: factors.shape });
        }
        tensors.push(factors);
    }
    let files = vec![path.to_owned()];
    let gguf = Some(header);
    Ok(Checkpoint { path: path.to_owned(), config, files, tensors, gguf, has_own_head: false, remarks })
}
