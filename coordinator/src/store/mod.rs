//! Small durable records: everything the coordinator must not forget except tensors.
//!
//! A [`Store`] is a map from text keys to JSON values. One [`Batch`] is atomic: after
//! [`Store::commit`] returned, all of it survives a power cut; if the process dies before, none of
//! it is there. One conformance suite holds every backend to that, on a disk that fails too.

pub mod blobs;
#[cfg(test)]
mod conformance;
pub mod durable;
mod index;
pub mod journal_guard;
mod journal_record;
pub mod mem;
pub mod record;
pub mod sled;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rondo_proto::files::is_full;

/// All records, sorted by key.
pub type Records = BTreeMap<String, Vec<u8>>;

/// Changes that happen together or not at all. `None` removes the key. A later change to a key
/// replaces an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: BTreeMap<String, Option<Vec<u8>>>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a record.
    pub fn put(&mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.changes.insert(key.into(), Some(value.into()));
    }

    /// Removes a record; removing one that is not there is no error.
    pub fn delete(&mut self, key: impl Into<String>) {
        self.changes.insert(key.into(), None);
    }

    /// Adds another batch's changes after these.
    pub fn extend(&mut self, other: Batch) {
        self.changes.extend(other.changes);
    }

    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes, sorted by key.
    pub fn changes(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.changes.iter().map(|(key, value)| (key.as_str(), value.as_deref()))
    }

    /// Carries the changes out on a map.
    pub fn apply(&self, records: &mut Records) {
        for (key, value) in &self.changes {
            match value {
                Some(value) => records.insert(key.clone(), value.clone()),
                None => records.remove(key),
            };
        }
    }
}

/// A place that keeps records.
pub trait Store: Send + Sync {
    /// Every record there is.
    fn load(&self) -> Result<Records, StoreError>;

    /// One record.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Records whose key starts with the prefix, sorted.
    fn scan(&self, prefix: &str) -> Result<Records, StoreError>;

    /// Carries out a batch, atomically, and returns when it is flushed to disk. On an error nothing
    /// of it was done, and a later commit works once the cause is gone.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Called once at an orderly end: makes the next start cheap. Nothing is lost without it.
    fn close(&self) -> Result<(), StoreError>;
}

impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    fn load(&self) -> Result<Records, StoreError> {
        (**self).load()
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).get(key)
    }

    fn scan(&self, prefix: &str) -> Result<Records, StoreError> {
        (**self).scan(prefix)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        (**self).commit(batch)
    }

    fn close(&self) -> Result<(), StoreError> {
        (**self).close()
    }
}

/// The records whose key starts with a prefix.
fn with_prefix(records: &Records, prefix: &str) -> Records {
    let matching = records.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
    matching.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The embedded database failed.
    #[error("store {path}: {source}")]
    Database {
        /// Where it lies.
        path: PathBuf,
        /// What sled says.
        #[source]
        source: ::sled::Error,
    },
    /// A file beside the database could not be read or written.
    #[error("store: cannot {action} {path}: {source}; check free space and permissions of the data directory")]
    File {
        /// What was tried, for example "append to".
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A record that this version cannot read.
    #[error("store record {key}: {problem}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The database does not open and there is no checkpoint beside it.
    #[error(
        "store {path} does not open ({problem}) and there is no checkpoint to rebuild it from; restore the data \
         directory from a backup"
    )]
    Lost {
        /// Where it lies.
        path: PathBuf,
        /// Why it does not open.
        problem: String,
    },
    /// Another process serves from this directory.
    #[error("data directory {path} is in use by another coordinator; stop that one first or choose another --data-dir")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
}

impl StoreError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            // sled keeps the kind of the system's error.
            Self::Database { source: ::sled::Error::Io(source), .. } => is_full(source),
            error => is_full(error),
        }
    }
}
