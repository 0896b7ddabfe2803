//! The index over the records: sled as long as it works, memory while it does not.
//!
//! The journal has every commit before the index gets it. So an index that fails is dropped, and
//! brought in line with the journal when it opens again. sled 0.34 keeps its first storage error
//! for ever, so it has to be opened again once there is space.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::journal_guard::JournalSnapshot;
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

/// Opens the database of a folder, or makes it, and waits so long at most for its lock. A trait
/// object, so that tests can let a disk fail.
pub(super) type OpenDatabase = Box<dyn Fn(&Path, Duration) -> Result<Box<dyn Database>, StoreError> + Send + Sync>;

/// Where records are looked up.
pub(super) enum Index {
    /// In the database.
    Database(Box<dyn Database>),
    /// In memory, as the journal has them, until the database works again.
    Memory(Records),
    /// Neither the database nor the journal could be read.
    Missing,
}

/// A database that was read through, and what is in it.
pub(super) struct Opened {
    pub(super) database: Box<dyn Database>,
    pub(super) sequence: u64,
    pub(super) records: Records,
}

/// sled 0.34 asserts where it finds damage: a panic is one more way to fail.
pub(super) fn catch_panic<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(StoreError::Record { key: path.display().to_string(), problem: format!("the database panicked: {said}") })
    })
}

/// Opens a database, whose lock is waited for so long at most, and reads it through once: one that
/// opens and cannot be read is as broken as one that does not open.
pub(super) fn open_and_load(open: &OpenDatabase, path: &Path, lock_wait: Duration) -> Result<Opened, StoreError> {
    catch_panic(path, || {
        let database = open(path, lock_wait)?;
        let sequence = database.sequence()?;
        let records = database.load()?;
        Ok(Opened { database, sequence, records })
    })
}

impl Opened {
    /// Brings the database in line with the journal.
    pub(super) fn catch_up(self, path: &Path, snapshot: &JournalSnapshot) -> Result<Box<dyn Database>, StoreError> {
        let mut batch = Batch::new();
        for key in self.records.keys().filter(|key| !snapshot.records.contains_key(*key)) {
            batch.delete(key.clone());
        }
        for (key, value) in snapshot.records.iter().filter(|(key, value)| self.records.get(*key) != Some(*value)) {
            batch.put(key.clone(), value.clone());
        }
        if batch.is_empty() && self.sequence == snapshot.sequence {
            return Ok(self.database);
        }
        tracing::warn!(
            path = %path.display(), database = self.sequence, journal = snapshot.sequence,
            "the database is behind the journal and is brought in line"
        );
        catch_panic(path, || self.database.commit_numbered(snapshot.sequence, &batch))?;
        Ok(self.database)
    }
}

/// Keeps a broken database aside and fills a new one from the journal.
pub(super) fn rebuild(
    open: &OpenDatabase,
    path: &Path,
    snapshot: &JournalSnapshot,
    problem: &str,
) -> Result<Box<dyn Database>, StoreError> {
    let file_error = |action, source| StoreError::File { action, path: path.to_owned(), source };
    let aside = free_name(path);
    tracing::error!(
        path = %path.display(), problem, kept = %aside.display(), sequence = snapshot.sequence,
        records = snapshot.records.len(), "the database is broken, rebuilding it from the checkpoint and the journal"
    );
    match std::fs::rename(path, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file_error("move aside", error)),
        _ => {}
    }
    // The folder is new, so nobody holds its lock.
    let built = open_and_load(open, path, Duration::ZERO).and_then(|opened| opened.catch_up(path, snapshot));
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
