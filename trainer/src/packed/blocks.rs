//! GGML's blocks to f32.
//!
//! A block is some numbers that share a scale. Layouts are those of `ggml-common.h`; numbers are
//! little-endian. The results are, bit for bit, those of `dequantize` in the Python package `gguf`:
//! each number is one product and at most one sum in f32, in the same order.

use half::{bf16, f16};
use rondo_base::gguf::BlockKind;

use super::{k_blocks, legacy_blocks};

/// Bytes and numbers do not belong together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{bytes} bytes of {kind} do not hold {numbers} numbers: a block has {} bytes for {}", .kind.bytes(), .kind.numbers())]
pub struct BlockError {
    /// How the numbers are packed.
    pub kind: BlockKind,
    /// Bytes that came.
    pub bytes: usize,
    /// Numbers that were asked for.
    pub numbers: usize,
}

/// Bytes that so many numbers take; `None` when they are no whole number of blocks.
pub fn bytes_of(kind: BlockKind, numbers: usize) -> Option<usize> {
    let per_block = kind.numbers() as usize;
    numbers.is_multiple_of(per_block).then(|| (numbers / per_block).checked_mul(kind.bytes() as usize)).flatten()
}

/// Unpacks whole blocks.
///
/// # Errors
/// `bytes` is not what `out` needs.
pub fn dequantise(kind: BlockKind, bytes: &[u8], out: &mut [f32]) -> Result<(), BlockError> {
    if bytes_of(kind, out.len()) != Some(bytes.len()) {
        return Err(BlockError { kind, bytes: bytes.len(), numbers: out.len() });
    }
    match kind {
        BlockKind::F32 => each::<4, 1>(bytes, out, |bytes, out| out[0] = f32::from_le_bytes(*bytes)),
        BlockKind::F16 => each::<2, 1>(bytes, out, |bytes, out| out[0] = f16::from_le_bytes(*bytes).to_f32()),
        BlockKind::Bf16 => each::<2, 1>(bytes, out, |bytes, out| out[0] = bf16::from_le_bytes(*bytes).to_f32()),
        BlockKind::Q8_0 => each::<34, 32>(bytes, out, legacy_blocks::q8_0),
        BlockKind::Q4_0 => each::<18, 32>(bytes, out, legacy_blocks::q4_0),
        BlockKind::Q4_1 => each::<20, 32>(bytes, out, legacy_blocks::q4_1),
        BlockKind::Q4K => each::<144, 256>(bytes, out, k_blocks::q4_k),
        BlockKind::Q6K => each::<210, 256>(bytes, out, k_blocks::q6_k),
    }
    Ok(())
}

/// Sizes are constants, so that the compiler sees every index of a block and unrolls.
#[inline(always)]
fn each<const BYTES: usize, const NUMBERS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES], &mut [f32; NUMBERS]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (numbers, _) = out.as_chunks_mut::<NUMBERS>();
    for (block, numbers) in blocks.iter().zip(numbers) {
        unpack(block, numbers);
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
