//! A GGUF file of the Llama family, its tensors by Hugging Face's names and in Hugging Face's order
//! of rows.

use std::fs::File;

use rondo_base::gguf::{BlockKind, Header};
use rondo_base::gguf_names::{ROPE_FACTORS, architecture, hugging_face, interleaved_row, is_interleaved};
use tch::{Device, Kind};

use super::{Entry, Numbers, WeightFiles};
use crate::models::ModelError;

impl WeightFiles {
    /// The tensors of a file with this header; `head_size` = numbers in a head.
    ///
    /// # Errors
    /// The file cannot be opened, or is of an architecture that is not read.
    pub fn open_gguf(header: &Header, head_size: usize, device: Device, kind: Kind) -> Result<Self, ModelError> {
        let path = &header.path;
        let file = File::open(path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
        let architecture = architecture(header)?;
        let mut weights = Self::empty(path.clone(), device, kind);
        weights.files.push((path.clone(), file));
        for tensor in &header.tensors {
            // A tensor without a name at Hugging Face keeps its own, to be refused by it.
            let name = match hugging_face(&tensor.name) {
                Some(name) => name,
                None => tensor.name.clone(),
            };
            let numbers = match tensor.kind {
                BlockKind::F32 => Numbers::Plain(Kind::Float),
                BlockKind::F16 => Numbers::Plain(Kind::Half),
                BlockKind::Bf16 => Numbers::Plain(Kind::BFloat16),
                blocks => Numbers::Blocks(blocks),
            };
            let entry = Entry {
                file: 0,
                offset: tensor.offset,
                bytes: tensor.bytes as usize,
                shape: tensor.shape.iter().map(|&n| n as usize).collect(),
                numbers,
                interleaved: is_interleaved(architecture, &name).then_some(head_size),
            };
            weights.entries.insert(name, entry);
        }
        Ok(weights)
    }

    /// The divisors of the rotary frequencies that a GGUF file may bring, `[pairs]`.
    ///
    /// # Errors
    /// They are absent or of another number.
    pub fn take_rope_factors(&mut self, pairs: usize) -> Result<Vec<f64>, ModelError> {
        let factors = self.take_as(ROPE_FACTORS, &[pairs], Kind::Double)?;
        Ok(Vec::<f64>::try_from(&factors.f_to_device(Device::Cpu)?)?)
    }
}

/// The same rows in Hugging Face's order: within each head, what turns together stands half a head
/// apart. Rows move as they are packed, since blocks lie along a row.
pub(super) fn half_behind_half(bytes: &[u8], rows: usize, head_size: usize) -> Vec<u8> {
    let wide = bytes.len() / rows.max(1);
    let mut ordered = Vec::with_capacity(bytes.len());
    for row in 0..rows {
        ordered.extend_from_slice(&bytes[interleaved_row(row, head_size) * wide..][..wide]);
    }
    ordered
}
