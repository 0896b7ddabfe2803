//! GGML's first quantised blocks: 32 numbers that share one scale.

use half::f16;

/// A half-precision number at a place of a block.
#[inline(always)]
pub(super) fn half_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Scale, then 32 signed bytes: `x = d q`.
#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for i in 0..32 {
        out[i] = f32::from(block[2 + i].cast_signed()) * scale;
    }
}

/// Scale, then 16 bytes; low halves are numbers 0 to 15, high halves 16 to 31: `x = d (q - 8)`.
#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for i in 0..16 {
        let byte = block[2 + i];
        out[i] = f32::from((byte & 15).cast_signed() - 8) * scale;
        out[i + 16] = f32::from((byte >> 4).cast_signed() - 8) * scale;
    }
}

/// Scale and least value, then 16 bytes as in Q4_0: `x = d q + m`.
#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    let least = half_at(block, 2);
    for i in 0..16 {
        let byte = block[4 + i];
        out[i] = f32::from(byte & 15) * scale + least;
        out[i + 16] = f32::from(byte >> 4) * scale + least;
    }
}
