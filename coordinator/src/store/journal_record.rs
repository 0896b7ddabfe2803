//! What the checkpoint and the journal consist of: `length u32 | BLAKE3 of the body | body`, where
//! the body is a commit number and its changes.

use super::Batch;

/// No record is larger: a length beyond it is damage, not data.
const MAX_RECORD_BYTES: usize = 1 << 30;
const HASH_BYTES: usize = 32;

/// A commit number and its changes.
pub(super) struct JournalRecord {
    /// Number of the commit.
    pub(super) sequence: u64,
    /// What it changed.
    pub(super) batch: Batch,
}

impl JournalRecord {
    /// Its bytes.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut body = self.sequence.to_le_bytes().to_vec();
        for (key, value) in self.batch.changes() {
            put_bytes(&mut body, key.as_bytes());
            body.push(u8::from(value.is_some()));
            put_bytes(&mut body, value.unwrap_or_default());
        }
        let mut bytes = Vec::with_capacity(body.len() + 4 + HASH_BYTES);
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(blake3::hash(&body).as_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The first record and what follows it; `None` when it is not whole.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (length, rest) = take_length(bytes)?;
        let (hash, rest) = rest.split_at_checked(HASH_BYTES)?;
        let (body, after) = rest.split_at_checked(length)?;
        if blake3::hash(body).as_bytes() != hash {
            return None;
        }
        let (sequence, mut rest) = body.split_at_checked(8)?;
        let mut record = Self { sequence: u64::from_le_bytes(sequence.try_into().ok()?), batch: Batch::new() };
        while !rest.is_empty() {
            let (key, next) = take_bytes(rest)?;
            let (present, next) = next.split_first()?;
            let (value, next) = take_bytes(next)?;
            let key = std::str::from_utf8(key).ok()?;
            if *present == 1 {
                record.batch.put(key, value)
            } else {
                record.batch.delete(key)
            }
            rest = next;
        }
        Some((record, after))
    }
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    to.extend_from_slice(bytes);
}

fn take_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    (length <= MAX_RECORD_BYTES).then_some((length, rest))
}

fn take_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = take_length(bytes)?;
    rest.split_at_checked(length)
}
