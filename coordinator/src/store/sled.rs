//! The embedded database alone: one sled tree of records and the number of the last commit.
//!
//! sled 0.34 has open reports of databases that do not open after an abrupt stop, which is why the
//! coordinator uses it through [`super::durable::DurableStore`], with a checkpoint and a journal
//! beside it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Batch, Records, Store, StoreError};

const RECORDS: &str = "records";
const SEQUENCE: &[u8] = b"sequence";
/// How long opening waits for a lock. sled closes its files on threads of its own, so it releases
/// its lock a moment after the last handle was dropped; on a busy machine that takes a while.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(3);
/// Pause between two tries to get the lock.
pub(crate) const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Records in sled.
pub struct SledStore {
    path: PathBuf,
    db: ::sled::Db,
    records: ::sled::Tree,
    meta: ::sled::Tree,
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // sled's own Debug prints every page.
        f.debug_struct("SledStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SledStore {
    /// Opens the database, or makes it. A lock that somebody holds is waited for up to
    /// [`LOCK_WAIT`].
    ///
    /// # Errors
    /// [`StoreError::InUse`] when the lock is still held then, or the database does not open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_within(path, LOCK_WAIT)
    }

    /// [`open`](Self::open) with another limit for the wait.
    pub(super) fn open_within(path: &Path, wait: Duration) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Database { path: path.to_owned(), source };
        // Flushed by hand after each commit: no background flush.
        let config = ::sled::Config::new().path(path).flush_every_ms(None);
        let give_up = Instant::now() + wait;
        let db = loop {
            match config.open() {
                Ok(db) => break db,
                Err(error) if is_locked(&error) => {
                    if Instant::now() >= give_up {
                        return Err(StoreError::InUse { path: path.to_owned() });
                    }
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(error) => return Err(failed(error)),
            }
        };
        let records = db.open_tree(RECORDS).map_err(failed)?;
        let meta = db.open_tree("meta").map_err(failed)?;
        Ok(Self { path: path.to_owned(), db, records, meta })
    }

    fn failed(&self, source: ::sled::Error) -> StoreError {
        StoreError::Database { path: self.path.clone(), source }
    }

    /// Number of the last commit that carried one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn sequence(&self) -> Result<u64, StoreError> {
        let bytes = self.meta.get(SEQUENCE).map_err(|e| self.failed(e))?;
        Ok(bytes.and_then(|b| b.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    /// Carries out a batch together with its number, then flushes. On an error sled may show the
    /// batch all the same, and refuses everything from then on: the handle has to be dropped and
    /// the database opened again.
    ///
    /// # Errors
    /// The database cannot be written or flushed.
    pub fn commit_numbered(&self, sequence: u64, batch: &Batch) -> Result<(), StoreError> {
        use ::sled::Transactional;
        let outcome = (&self.records, &self.meta).transaction(|(records, meta)| {
            for (key, value) in batch.changes() {
                match value {
                    Some(value) => records.insert(key.as_bytes(), value)?,
                    None => records.remove(key.as_bytes())?,
                };
            }
            meta.insert(SEQUENCE, &sequence.to_be_bytes())?;
            Ok::<_, ::sled::transaction::ConflictableTransactionError<std::convert::Infallible>>(())
        });
        match outcome {
            Ok(()) => {}
            Err(::sled::transaction::TransactionError::Storage(source)) => return Err(self.failed(source)),
            Err(::sled::transaction::TransactionError::Abort(never)) => match never {},
        }
        self.db.flush().map_err(|e| self.failed(e))?;
        Ok(())
    }

    fn collect(&self, iter: ::sled::Iter) -> Result<Records, StoreError> {
        iter.map(|entry| {
            let (key, value) = entry.map_err(|e| self.failed(e))?;
            let key = String::from_utf8(key.to_vec()).map_err(|e| StoreError::Record {
                key: e.to_string(),
                problem: "has a key that is no text".to_owned(),
            })?;
            Ok((key, value.to_vec()))
        })
        .collect()
    }
}

/// sled has no error kind of its own for a lock that somebody else holds.
fn is_locked(error: &::sled::Error) -> bool {
    matches!(error, ::sled::Error::Io(_)) && error.to_string().contains("could not acquire lock")
}

impl Store for SledStore {
    fn load(&self) -> Result<Records, StoreError> {
        self.collect(self.records.iter())
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.records.get(key).map_err(|e| self.failed(e))?.map(|value| value.to_vec()))
    }

    fn scan(&self, prefix: &str) -> Result<Records, StoreError> {
        self.collect(self.records.scan_prefix(prefix))
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let next = self.sequence()? + 1;
        self.commit_numbered(next, batch)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|e| self.failed(e))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_being_released_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = SledStore::open(dir.path()).unwrap();
        let mut batch = Batch::new();
        batch.put("a", "1");
        held.commit(&batch).unwrap();
        let release = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(held);
        });
        let store = SledStore::open(dir.path()).unwrap();
        assert_eq!(store.get("a").unwrap(), Some(b"1".to_vec()));
        release.join().unwrap();
    }

    #[test]
    fn a_lock_that_stays_held_is_refused_by_name_after_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let _held = SledStore::open(dir.path()).unwrap();
        for wait in [Duration::ZERO, Duration::from_millis(200)] {
            let asked = Instant::now();
            let error = SledStore::open_within(dir.path(), wait).unwrap_err();
            assert!(matches!(error, StoreError::InUse { .. }), "{error}");
            assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
            assert!((wait..wait + Duration::from_secs(20)).contains(&asked.elapsed()), "{:?}", asked.elapsed());
        }
    }
}
