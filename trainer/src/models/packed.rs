//! Matrices in few bits: the blocks of a GGUF file, or NF4.

use rondo_base::gguf::BlockKind;
use tch::{Device, Kind, Tensor};

use super::ModelError;
use super::weight::Packed;
use crate::error::TrainerError;
use crate::packed::blocks::{bytes_of, dequantise};
use crate::packed::nf4::{BLOCK, Nf4};

/// Numbers unpacked at a time on their way to another kind or device than f32 on the CPU.
const PART: usize = 1 << 18;
/// Fewer numbers than that for each are not worth a thread.
const THREAD: usize = 1 << 16;

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
    /// A matrix out of a GGUF file; `bytes` are its rows, one after another. `None` when they do
    /// not fit its shape.
    pub fn blocks(kind: BlockKind, bytes: Vec<u8>, [rows, columns]: [usize; 2]) -> Option<Self> {
        let row_bytes = bytes_of(kind, columns)?;
        let fits = rows.checked_mul(row_bytes) == Some(bytes.len());
        fits.then_some(Self { rows, columns, numbers: Numbers::Blocks { kind, bytes, row_bytes } })
    }

    /// Packs a matrix to 4-bit NormalFloat.
    ///
    /// # Errors
    /// It is no matrix.
    pub fn nf4(matrix: &Tensor) -> Result<Self, ModelError> {
        let (rows, columns) = matrix.size2()?;
        let flat = matrix.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view(-1)?;
        let numbers = Numbers::Nf4(Nf4::pack(&Vec::<f32>::try_from(&flat)?));
        Ok(Self { rows: rows as usize, columns: columns as usize, numbers })
    }

    /// A matrix whose rows, one after another, were packed to 4-bit NormalFloat. `None` when they
    /// do not fit its shape.
    pub fn of_nf4(numbers: Nf4, [rows, columns]: [usize; 2]) -> Option<Self> {
        let fits = rows.checked_mul(columns) == Some(numbers.numbers);
        fits.then_some(Self { rows, columns, numbers: Numbers::Nf4(numbers) })
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

impl PackedMatrix {
    /// These rows' numbers, one row after another, unpacked by as many threads as libtorch computes
    /// with.
    fn fill(&self, rows: &[i64], out: &mut [f32]) -> Result<(), TrainerError> {
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).min(out.len() / THREAD).max(1);
        if threads == 1 {
            return self.fill_here(rows, out);
        }
        let share = rows.len().div_ceil(threads);
        std::thread::scope(|scope| {
            let mut parts = rows.chunks(share).zip(out.chunks_mut(share * self.columns));
            let first = parts.next();
            let others: Vec<_> = parts.map(|(rows, out)| scope.spawn(move || self.fill_here(rows, out))).collect();
            let done = first.map_or(Ok(()), |(rows, out)| self.fill_here(rows, out));
            others.into_iter().fold(done, |done, other| match other.join() {
                Ok(found) => done.and(found),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    fn fill_here(&self, mut rows: &[i64], mut out: &mut [f32]) -> Result<(), TrainerError> {
        while let Some(&row) = rows.first() {
            // Neighbours go together.
            let run = 1 + rows.windows(2).take_while(|pair| pair[1] == pair[0] + 1).count();
            let last = row.checked_add(run as i64 - 1).and_then(|last| usize::try_from(last).ok());
            let (Ok(row), true) = (usize::try_from(row), last.is_some_and(|last| last < self.rows)) else {
                let problem = format!("rows {row} and on, {run} of them, of {}", self.rows);
                return Err(TrainerError::Tensor { name: "packed weight".into(), problem });
            };
            let (these, others) = out.split_at_mut(run * self.columns);
            self.unpack(row, these)?;
            (rows, out) = (&rows[run..], others);
        }
        Ok(())
    }

    /// These rows as a tensor `[n, columns]` in f32 on the CPU.
    fn plain(&self, rows: &[i64]) -> Result<Tensor, TrainerError> {
        let matrix = Tensor::f_empty([rows.len() as i64, self.columns as i64], (Kind::Float, Device::Cpu))?;
        let numbers = rows.len() * self.columns;
        if numbers > 0 {
            // SAFETY: the tensor was made here, contiguous and on the CPU, with so many numbers of
            // this kind; nobody else has it, and it outlives the slice. Any bits are an f32.
            let out = unsafe { std::slice::from_raw_parts_mut(matrix.data_ptr().cast::<f32>(), numbers) };
            self.fill(rows, out)?;
        }
        Ok(matrix)
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
        let rows: Vec<i64> = (0..self.rows as i64).collect();
        self.rows(&rows, kind, device)
    }

    fn rows(&self, rows: &[i64], kind: Kind, device: Device) -> Result<Tensor, TrainerError> {
        if (kind, device) == (Kind::Float, Device::Cpu) {
            return self.plain(rows);
        }
        let matrix = Tensor::f_empty([rows.len() as i64, self.columns as i64], (kind, device))?;
        let mut done = 0;
        for rows in rows.chunks((PART / self.columns.max(1)).max(1)) {
            let mut there = matrix.f_narrow(0, done, rows.len() as i64)?;
            tch::no_grad(|| there.f_copy_(&self.plain(rows)?).map_err(TrainerError::from))?;
            done += rows.len() as i64;
        }
        Ok(matrix)
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
