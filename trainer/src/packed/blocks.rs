//! GGML's blocks to f32.
//!
//! A block is some numbers that share a scale. Layouts are those of `ggml-common.h`; numbers are little-endian. The
//! results are, bit for bit, those of `dequantize` in the Python package `gguf`: each number is one product and at most
//! one sum in f32, in the same order.

use half::{bf16, f16};
use rondo_base::gguf::BlockKind;

use super::k_blocks;

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
        BlockKind::Q8_0 => each::<34, 32>(bytes, out, q8_0),
        BlockKind::Q4_0 => each::<18, 32>(bytes, out, q4_0),
        BlockKind::Q4_1 => each::<20, 32>(bytes, out, q4_1),
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

/// A half-precision number at a place of a block.
#[inline(always)]
pub(super) fn half_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Scale, then 32 signed bytes: `x = d q`.
#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for i in 0..32 {
        out[i] = f32::from(block[2 + i].cast_signed()) * scale;
    }
}

/// Scale, then 16 bytes; low halves are numbers 0 to 15, high halves 16 to 31: `x = d (q - 8)`.
#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for i in 0..16 {
        let byte = block[2 + i];
        out[i] = f32::from((byte & 15).cast_signed() - 8) * scale;
        out[i + 16] = f32::from((byte >> 4).cast_signed() - 8) * scale;
    }
}

/// Scale and least value, then 16 bytes as in Q4_0: `x = d q + m`.
#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    for i in 0..16 {
        let byte = block[4 + i];
        out[i] = f32::from(byte & 15) * scale + least;
        out[i + 16] = f32::from(byte >> 4) * scale + least;
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
