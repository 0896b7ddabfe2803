//! Matrices in few bits: the blocks of a GGUF file, or NF4.

use rondo_proto::gguf::BlockKind;
use tch::{Device, Kind, Tensor};

use super::ModelError;
use super::weight::Packed;
use crate::gguf::blocks::{bytes_of, dequantise};
use crate::quant::nf4::{BLOCK, Nf4};
use crate::trainer::error::TrainerError;

/// Numbers unpacked at a time: what they take in f32 fits in a core's cache.
const PART: usize = 1 << 16;

/// A matrix `[rows, columns]` whose numbers are unpacked in parts.
pub struct PackedMatrix {
    rows: usize,
    columns: usize,
    numbers: Numbers,
}

enum Numbers {
    /// Blocks lie along a row; a row is whole blocks.
    Blocks { kind: BlockKind, bytes: Vec<u8>, row_bytes: usize },
    /// Blocks of the matrix as one long row, as bitsandbytes packs it.
    Nf4(Nf4),
}

impl PackedMatrix {
    /// A matrix out of a GGUF file; `bytes` are its rows, one after another. `None` when they do not fit its shape.
    pub fn blocks(kind: BlockKind, bytes: Vec<u8>, [rows, columns]: [usize; 2]) -> Option<Self> {
        let row_bytes = bytes_of(kind, columns)?;
        let fits = rows.checked_mul(row_bytes) == Some(bytes.len());
        fits.then_some(Self { rows, columns, numbers: Numbers::Blocks { kind, bytes, row_bytes } })
    }

    /// Packs a matrix to 4-bit NormalFloat.
    pub fn nf4(matrix: &Tensor) -> Result<Self, ModelError> {
        let (rows, columns) = matrix.size2()?;
        let flat = matrix.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view(-1)?;
        let numbers = Numbers::Nf4(Nf4::pack(&Vec::<f32>::try_from(&flat)?));
        Ok(Self { rows: rows as usize, columns: columns as usize, numbers })
    }

    /// Some rows' numbers, as many as `out` takes.
    fn unpack(&self, row: usize, out: &mut [f32]) -> Result<(), TrainerError> {
        let refuse = |problem: String| TrainerError::Tensor { name: "packed weight".into(), problem };
        match &self.numbers {
            Numbers::Blocks { kind, bytes, row_bytes } => {
                let rows = out.len() / self.columns.max(1);
                let part = bytes.get(row * row_bytes..(row + rows) * row_bytes);
                let part = part.ok_or_else(|| refuse(format!("row {row} of {}", self.rows)))?;
                dequantise(*kind, part, out).map_err(|error| refuse(error.to_string()))
            }
            Numbers::Nf4(nf4) => {
                let first = row * self.columns;
                let ahead = first % BLOCK;
                if ahead == 0 {
                    return nf4.unpack(first, out).map_err(|error| refuse(error.to_string()));
                }
                // The row begins within a block.
                let mut wider = vec![0.0; ahead + out.len()];
                nf4.unpack(first - ahead, &mut wider).map_err(|error| refuse(error.to_string()))?;
                out.copy_from_slice(&wider[ahead..]);
                Ok(())
            }
        }
    }
}

impl Packed for PackedMatrix {
    fn size(&self) -> (i64, i64) {
        (self.rows as i64, self.columns as i64)
    }

    fn bytes(&self) -> usize {
        match &self.numbers {
            Numbers::Blocks { bytes, .. } => bytes.len(),
            Numbers::Nf4(nf4) => nf4.bytes(),
        }
    }

    fn dense(&self, kind: Kind, device: Device) -> Result<Tensor, TrainerError> {
        let columns = self.columns as i64;
        let matrix = Tensor::f_empty([self.rows as i64, columns], (kind, device))?;
        let step = (PART / self.columns.max(1)).max(1);
        let mut part = vec![0.0; step.min(self.rows) * self.columns];
        for row in (0..self.rows).step_by(step) {
            let rows = step.min(self.rows - row);
            let part = &mut part[..rows * self.columns];
            self.unpack(row, part)?;
            let part = Tensor::f_from_slice(part)?.f_view([rows as i64, columns])?;
            let mut there = matrix.f_narrow(0, row as i64, rows as i64)?;
            tch::no_grad(|| there.f_copy_(&part))?;
        }
        Ok(matrix)
    }

    fn rows(&self, rows: &[i64], kind: Kind, device: Device) -> Result<Tensor, TrainerError> {
        let mut numbers = vec![0.0; rows.len() * self.columns];
        for (&row, out) in rows.iter().zip(numbers.chunks_mut(self.columns.max(1))) {
            let there = usize::try_from(row).ok().filter(|row| *row < self.rows).ok_or_else(|| {
                TrainerError::Tensor { name: "packed weight".into(), problem: format!("row {row} of {}", self.rows) }
            })?;
            self.unpack(there, out)?;
        }
        let matrix = Tensor::f_from_slice(&numbers)?.f_view([rows.len() as i64, self.columns as i64])?;
        Ok(matrix.f_to_device(device)?.f_to_kind(kind)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_nf4_need_not_be_whole_blocks() {
        let matrix = Tensor::arange(7 * 48, (Kind::Float, Device::Cpu)).sin().view([7, 48]);
        let packed = PackedMatrix::nf4(&matrix).unwrap();
        let dense = packed.dense(Kind::Float, Device::Cpu).unwrap();
        let off = (&dense - &matrix).abs().max().double_value(&[]);
        assert!(off < 0.16 && off > 0.0, "{off}");
        let chosen = packed.rows(&[3, 0, 6], Kind::Float, Device::Cpu).unwrap();
        assert_eq!(chosen, dense.index_select(0, &Tensor::from_slice(&[3_i64, 0, 6])));
        assert!(packed.rows(&[7], Kind::Float, Device::Cpu).is_err());
        assert!(packed.rows(&[-1], Kind::Float, Device::Cpu).is_err());
        assert_eq!(packed.bytes(), 7 * 48 / 2 + 4 * 6);
    }

    #[test]
    fn blocks_must_fit_the_shape() {
        assert!(PackedMatrix::blocks(BlockKind::Q8_0, vec![0; 34 * 4], [2, 64]).is_some());
        assert!(PackedMatrix::blocks(BlockKind::Q8_0, vec![0; 34 * 4], [2, 48]).is_none());
        assert!(PackedMatrix::blocks(BlockKind::Q8_0, vec![0; 34 * 4], [3, 64]).is_none());
    }
}
