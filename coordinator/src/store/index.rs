//! The index over the records: sled as long as it works, memory while it does not.
//!
//! The journal has every commit before the index hears of it, so an index is never missed: one that fails is dropped,
//! and brought in line with the journal when it opens again. sled 0.34 keeps its first storage error for ever, which is
//! why it has to be opened anew once there is space.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::checkpoint::Remembered;
use super::sled::SledStore;
use super::{Batch, Records, Store, StoreError};

/// A database of records that knows the number of its last commit.
pub(super) trait Database: Store {
    /// Number of the last commit that carried one.
    fn sequence(&self) -> Result<u64, StoreError>;
    /// Carries out a batch together with its number, then flushes.
    fn commit_numbered(&self, sequence: u64, batch: &Batch) -> Result<(), StoreError>;
}

impl Database for SledStore {
    fn sequence(&self) -> Result<u64, StoreError> {
        SledStore::sequence(self)
    }

    fn commit_numbered(&self, sequence: u64, batch: &Batch) -> Result<(), StoreError> {
        SledStore::commit_numbered(self, sequence, batch)
    }
}

/// Opens the database of a folder, or makes it; a trait object, so that tests can let a disk fail.
pub(super) type OpenDatabase = Box<dyn Fn(&Path) -> Result<Box<dyn Database>, StoreError> + Send + Sync>;

/// Where records are looked up.
pub(super) enum Index {
    /// In the database.
    Database(Box<dyn Database>),
    /// In memory, as the guard remembers them, until the database works again.
    Memory(Records),
    /// Neither the database nor the guard could be read.
    Missing,
}

/// A database that was read through, and what is in it.
pub(super) struct Opened {
    pub(super) database: Box<dyn Database>,
    pub(super) sequence: u64,
    pub(super) records: Records,
}

/// sled 0.34 asserts where it finds damage: a panic is one more way to fail.
pub(super) fn unharmed<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(StoreError::Record { key: path.display().to_string(), problem: format!("the database panicked: {said}") })
    })
}

/// Opens a database and reads it through once: one that opens and cannot be read is as broken as one that does not open.
pub(super) fn open_whole(open: &OpenDatabase, path: &Path) -> Result<Opened, StoreError> {
    let outcome = unharmed(path, || {
        let database = open(path)?;
        let (sequence, records) = (database.sequence()?, database.load()?);
        Ok(Opened { database, sequence, records })
    });
    match outcome {
        Err(e) if e.to_string().contains("could not acquire lock") => Err(StoreError::InUse { path: path.to_owned() }),
        outcome => outcome,
    }
}

impl Opened {
    /// Brings the database in line with what the guard remembers.
    pub(super) fn follow(self, path: &Path, remembered: &Remembered) -> Result<Box<dyn Database>, StoreError> {
        let mut batch = Batch::new();
        for key in self.records.keys().filter(|key| !remembered.records.contains_key(*key)) {
            batch.delete(key.clone());
        }
        for (key, value) in remembered.records.iter().filter(|(key, value)| self.records.get(*key) != Some(*value)) {
            batch.put(key.clone(), value.clone());
        }
        if batch.is_empty() && self.sequence == remembered.sequence {
            return Ok(self.database);
        }
        tracing::warn!(
            path = %path.display(), database = self.sequence, journal = remembered.sequence,
            "the database is behind the journal and is brought in line"
        );
        unharmed(path, || self.database.commit_numbered(remembered.sequence, &batch))?;
        Ok(self.database)
    }
}

/// Keeps a broken database aside and fills a new one from the guard.
pub(super) fn rebuild(
    open: &OpenDatabase,
    path: &Path,
    remembered: &Remembered,
    problem: &str,
) -> Result<Box<dyn Database>, StoreError> {
    let file_error = |action, source| StoreError::File { action, path: path.to_owned(), source };
    let aside = free_name(path);
    tracing::error!(
        path = %path.display(), problem, kept = %aside.display(), sequence = remembered.sequence,
        records = remembered.records.len(), "the database is broken, rebuilding it from the checkpoint and the journal"
    );
    match std::fs::rename(path, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file_error("move aside", error)),
        _ => {}
    }
    let built = open_whole(open, path).and_then(|opened| opened.follow(path, remembered));
    if built.is_err() {
        // Half of an index is of no use, and the next try must not keep it aside as well.
        if let Err(error) = std::fs::remove_dir_all(path) {
            tracing::warn!(path = %path.display(), %error, "a half-made database stays");
        }
    }
    built
}

fn free_name(path: &Path) -> PathBuf {
    let mut number = 1;
    loop {
        let name = path.with_extension(format!("broken-{number}"));
        if !name.exists() {
            return name;
        }
        number += 1;
    }
}
