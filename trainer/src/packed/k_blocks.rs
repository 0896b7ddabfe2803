//! The k-quants: 256 numbers to a block, in runs with scales of their own that are packed as well.

use super::legacy_blocks::half_at;

/// 12 bytes that hold eight scales and eight least values of 6 bits each. The first four of either
/// are the low 6 bits of bytes 0 to 7; of the others, the low 4 bits stand in bytes 8 to 11 and the
/// high 2 on top of bytes 0 to 7.
#[inline(always)]
fn scales_and_leasts(block: &[u8; 144]) -> ([u8; 8], [u8; 8]) {
    let mut scales = [0; 8];
    let mut leasts = [0; 8];
    for i in 0..4 {
        let scale = block[4 + i];
        let least = block[8 + i];
        let both = block[12 + i];
        scales[i] = scale & 63;
        leasts[i] = least & 63;
        scales[i + 4] = (both & 15) | ((scale >> 6) << 4);
        leasts[i + 4] = (both >> 4) | ((least >> 6) << 4);
    }
    (scales, leasts)
}

/// Q4_K: `x = (d s) q - (m l)` with one `s` and `l` for each 32 numbers. Of each 32 bytes the low
/// halves are one part and the high halves the next.
#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let scale = half_at(block, 0);
    let least = half_at(block, 2);
    let (scales, leasts) = scales_and_leasts(block);
    for pair in 0..4 {
        let low = (scale * f32::from(scales[2 * pair]), least * f32::from(leasts[2 * pair]));
        let high = (scale * f32::from(scales[2 * pair + 1]), least * f32::from(leasts[2 * pair + 1]));
        for i in 0..32 {
            let byte = block[16 + 32 * pair + i];
            out[64 * pair + i] = low.0 * f32::from(byte & 15) - low.1;
            out[64 * pair + 32 + i] = high.0 * f32::from(byte >> 4) - high.1;
        }
    }
}

/// Q6_K: `x = (d s) (q - 32)` with one signed `s` for each 16 numbers. Low 4 bits in 128 bytes,
/// high 2 bits in 64, scales in 16, then `d`. Each half of the block is four runs of 32 numbers: of
/// the 64 bytes of low bits, the low halves are runs 0 and 1, the high halves runs 2 and 3; of each
/// byte of high bits, two bits for each run.
#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let scale = half_at(block, 208);
    for half in 0..2 {
        for run in 0..4 {
            for part in 0..2 {
                let number = 128 * half + 32 * run + 16 * part;
                let scale = scale * f32::from(block[192 + number / 16].cast_signed());
                for i in 16 * part..16 * part + 16 {
                    let low = block[64 * half + 32 * (run % 2) + i] >> (4 * (run / 2)) & 15;
                    let high = block[128 + 32 * half + i] >> (2 * run) & 3;
                    out[128 * half + 32 * run + i] = scale * f32::from((low | high << 4).cast_signed() - 32);
                }
            }
        }
    }
}
