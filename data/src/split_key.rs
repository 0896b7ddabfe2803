//! Which rows are held out. What a row gives to the model decides its side: neither the order of
//! the rows nor rows that come and go move any other row, and rows that ask the same stand on the
//! same side.

use serde::Serialize;

/// The first 8 bytes of BLAKE3(`dataset`, 0, `text`), big-endian: uniform over u64.
pub(super) fn key(dataset: &str, text: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(dataset.as_bytes()).update(&[0]).update(text.as_bytes());
    first_8(&hasher)
}

/// Orders rows with equal keys by all that they say, so that the order does not depend on the
/// file's.
pub(super) fn tie(content: &impl Serialize, reference: Option<&str>, group: Option<&str>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    // Writing JSON to a hasher cannot fail.
    let _ = serde_json::to_writer(&mut hasher, &(content, reference, group));
    first_8(&hasher)
}

fn first_8(hasher: &blake3::Hasher) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(first)
}

/// The key below which rows are held out.
pub(super) fn bound(fraction: f64) -> u64 {
    // 2^64; the cast saturates, and a fraction of 0 holds nothing out.
    (fraction * 18_446_744_073_709_551_616.0) as u64
}
