//! Which rows are held out: decided by each row's own text, so that neither the order of the rows nor rows that come
//! and go move any other row to the other side, and equal texts never stand on both sides.

use super::Example;

/// The first 8 bytes of BLAKE3(`dataset`, 0, `text`), big-endian: uniform over u64.
pub(super) fn key(dataset: &str, text: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(dataset.as_bytes()).update(&[0]).update(text.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(first)
}

/// How many of the rows, which are in key order, lie below `fraction` of the key space.
pub(super) fn held_out(examples: &[Example], fraction: f64) -> usize {
    // 2^64; the cast saturates, and a fraction of 0 holds nothing out.
    let bound = (fraction * 18_446_744_073_709_551_616.0) as u64;
    examples.partition_point(|example| example.key < bound)
}
