//! What is a GGUF file's own: the order of rows in q and k, and factors of the rotation.

use rondo_base::gguf_names::{ROPE_FACTORS, interleaved_row};
use tch::{Device, Kind};

use super::WeightFiles;
use crate::models::ModelError;

impl WeightFiles {
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
