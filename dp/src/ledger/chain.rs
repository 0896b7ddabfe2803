//! A ledger's lines: one JSON object each, chained by hashes, so that an entry cannot be changed,
//! dropped or moved without every hash after it changing too.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::LedgerError;
use super::state::Entry;

/// Domain separation of the chain's hashes.
const CONTEXT: &str = "rondo 2026 privacy ledger v1";

/// The hash of an entry and of all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Entries so far.
    pub entries: u64,
    hash: blake3::Hash,
}

impl Default for Head {
    fn default() -> Self {
        Self { entries: 0, hash: blake3::Hash::from_bytes([0; 32]) }
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "blake3:{}", self.hash.to_hex())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    number: u64,
    entry: Box<RawValue>,
    hash: String,
}

impl Head {
    /// As the head file has it.
    pub(super) fn line(&self) -> String {
        format!("{} {self}", self.entries)
    }

    /// Reads what [`Head::line`] wrote.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (entries, hash) = line.trim_end().split_once(' ')?;
        let hash = blake3::Hash::from_hex(hash.strip_prefix("blake3:")?).ok()?;
        Some(Self { entries: entries.parse().ok()?, hash })
    }

    fn after(&self, entry: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        let entries = self.entries + 1;
        hasher.update(&entries.to_le_bytes());
        hasher.update(self.hash.as_bytes());
        hasher.update(entry.as_bytes());
        Self { entries, hash: hasher.finalize() }
    }

    /// The line of the next entry, with its line break, and the head after it.
    pub(super) fn write(&self, entry: &Entry) -> Result<(String, Self), LedgerError> {
        let unwritable = |error: serde_json::Error| LedgerError::Unwritable { problem: error.to_string() };
        let text = serde_json::to_string(entry).map_err(unwritable)?;
        let next = self.after(&text);
        let entry = RawValue::from_string(text).map_err(unwritable)?;
        let line = Line { number: next.entries, entry, hash: next.hash.to_hex().to_string() };
        Ok((serde_json::to_string(&line).map_err(unwritable)? + "\n", next))
    }

    /// Reads the next line.
    pub(super) fn read(&self, line: &str) -> Result<(Entry, Self), LedgerError> {
        let damaged = |problem: String| LedgerError::Edited { line: self.entries + 1, problem };
        let found: Line = serde_json::from_str(line).map_err(|error| damaged(error.to_string()))?;
        let next = self.after(found.entry.get());
        if found.number != next.entries {
            return Err(damaged(format!("it says that it is entry {}", found.number)));
        }
        if found.hash != next.hash.to_hex().as_str() {
            return Err(damaged("its hash is not that of this entry and those before it".to_owned()));
        }
        let entry = serde_json::from_str(found.entry.get()).map_err(|error| damaged(error.to_string()))?;
        Ok((entry, next))
    }
}
