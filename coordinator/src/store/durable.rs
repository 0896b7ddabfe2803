//! The store the coordinator runs on: a journal with checkpoints, and sled as the index over it.
//!
//! The journal is the truth. A commit is appended to it and flushed; from then on it counts. An
//! append that failed is cut off again and did not happen. Then the commit is applied to the index.
//! When the index fails, on a full disk say, it is dropped. Records are then looked up in memory,
//! as the journal has them, until the index opens again. At the start an index that is behind the
//! journal is brought in line. One that does not open is kept aside and rebuilt.

use std::fmt;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::index::{Database, Index, OpenDatabase, catch_panic, open_and_load, rebuild};
use super::journal_guard::{self, JournalFile, JournalGuard, JournalSnapshot};
use super::sled::{LOCK_WAIT, SledStore};
use super::{Batch, Records, Store, StoreError, with_prefix};

/// An index that failed is opened again this much later at the earliest.
const REOPEN_AFTER: Duration = Duration::from_secs(2);

/// Journal, checkpoint and index of one directory.
pub struct DurableStore {
    /// Folder of the database.
    path: PathBuf,
    open: OpenDatabase,
    reopen_after: Duration,
    /// Always locked before `index`.
    writer: Mutex<Writer>,
    index: RwLock<Index>,
}

#[derive(Debug)]
struct Writer {
    guard: JournalGuard,
    sequence: u64,
    /// When the index failed or was last tried in vain.
    failed_at: Option<Instant>,
}

impl fmt::Debug for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // sled's own Debug prints every page.
        f.debug_struct("DurableStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DurableStore {
    /// Opens the store of a directory, makes it when there is none, and rebuilds its database when
    /// that is broken. A database that another handle still closes is waited for a few seconds.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process uses the directory; a file that cannot be read or
    /// written; [`StoreError::Lost`] when neither the database nor a checkpoint can be read.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let open: OpenDatabase = Box::new(|path, wait| Ok(Box::new(SledStore::open_within(path, wait)?)));
        Self::open_on(directory, open, |journal| journal, REOPEN_AFTER)
    }

    /// The same with a database and a journal file that may be made to fail.
    pub(super) fn open_on(
        directory: &Path,
        open: OpenDatabase,
        wrap: impl FnOnce(Box<dyn JournalFile>) -> Box<dyn JournalFile>,
        reopen_after: Duration,
    ) -> Result<Self, StoreError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File { action, path, source }
        };
        std::fs::create_dir_all(directory).map_err(failed("make", directory))?;
        let path = directory.join("sled");
        let opened = match open_and_load(&open, &path, LOCK_WAIT) {
            Err(e @ StoreError::InUse { .. }) => return Err(e),
            opened => opened,
        };
        // Under the lock: a handle that was still open may have committed until now.
        let snapshot = journal_guard::replay(directory)?;
        let (database, now) = match (opened, snapshot) {
            // A database that has no room to open is not broken.
            (Err(e), _) if e.is_full() => return Err(e),
            (Err(e), None) => return Err(StoreError::Lost { path, problem: e.to_string() }),
            (Err(e), Some(snapshot)) => (rebuild(&open, &path, &snapshot, &e.to_string())?, snapshot),
            // One commit behind, the process died between the journal and the index. More than
            // that, the index lost some.
            (Ok(opened), Some(snapshot)) if opened.sequence + 1 < snapshot.sequence => {
                let problem = format!("it is at commit {}, the journal at {}", opened.sequence, snapshot.sequence);
                // Closed before its folder is moved.
                drop(opened);
                (rebuild(&open, &path, &snapshot, &problem)?, snapshot)
            }
            (Ok(opened), Some(snapshot)) if opened.sequence <= snapshot.sequence => {
                let database = match opened.catch_up(&path, &snapshot) {
                    Ok(database) => database,
                    Err(e) if e.is_full() => return Err(e),
                    Err(e) => rebuild(&open, &path, &snapshot, &e.to_string())?,
                };
                (database, snapshot)
            }
            (Ok(opened), snapshot) => {
                if let Some(snapshot) = snapshot {
                    tracing::error!(
                        database = opened.sequence,
                        journal = snapshot.sequence,
                        "the journal is damaged, the database has what it lost"
                    );
                }
                let now = JournalSnapshot { sequence: opened.sequence, records: opened.records };
                (opened.database, now)
            }
        };
        let journal = directory.join("journal");
        let file = OpenOptions::new().create(true).append(true).read(true).open(&journal);
        let file: Box<dyn JournalFile> = Box::new(file.map_err(failed("open", &journal))?);
        let guard = JournalGuard::start_on(directory, wrap(file), &now)?;
        let writer = Writer { guard, sequence: now.sequence, failed_at: None };
        Ok(Self { path, open, reopen_after, writer: Mutex::new(writer), index: RwLock::new(Index::Database(database)) })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, index: Index) {
        let before = std::mem::replace(&mut *self.index.write().unwrap_or_else(PoisonError::into_inner), index);
        // A database that failed may fail once more while it closes; that is of no account.
        let closed = catch_panic(&self.path, || {
            drop(before);
            Ok(())
        });
        if let Err(error) = closed {
            tracing::warn!(%error, "a database did not close well");
        }
    }

    /// Looks something up; a database that fails is dropped and the journal asked.
    fn read<T>(
        &self,
        from_database: impl Fn(&dyn Database) -> Result<T, StoreError>,
        from_memory: impl Fn(&Records) -> T,
    ) -> Result<T, StoreError> {
        let look = || match &*self.index.read().unwrap_or_else(PoisonError::into_inner) {
            Index::Database(database) => Some(catch_panic(&self.path, || from_database(&**database))),
            Index::Memory(records) => Some(Ok(from_memory(records))),
            Index::Missing => None,
        };
        match look() {
            Some(Ok(found)) => Ok(found),
            failed => {
                if let Some(Err(error)) = failed {
                    tracing::error!(%error, "the database cannot be read, the journal is asked");
                }
                let mut writer = self.writer();
                self.fall_back(&mut writer)?;
                drop(writer);
                look().unwrap_or_else(|| {
                    let problem = "neither the database nor the journal could be read".to_owned();
                    Err(StoreError::Lost { path: self.path.clone(), problem })
                })
            }
        }
    }

    /// Drops the database and takes the records from the journal.
    fn fall_back(&self, writer: &mut Writer) -> Result<(), StoreError> {
        writer.failed_at = Some(Instant::now());
        // First of all nobody reads what the database shows.
        self.replace(Index::Missing);
        let snapshot = writer.guard.replay()?;
        self.replace(Index::Memory(snapshot.records));
        Ok(())
    }

    /// Opens a database that failed again, now and then.
    fn recover(&self, writer: &mut Writer) {
        if writer.failed_at.is_none_or(|at| at.elapsed() < self.reopen_after) {
            return;
        }
        writer.failed_at = Some(Instant::now());
        let reopened = writer.guard.replay().and_then(|snapshot| {
            match open_and_load(&self.open, &self.path, Duration::ZERO)
                .and_then(|opened| opened.catch_up(&self.path, &snapshot))
            {
                // The handle that was dropped may still be closing its files. A commit waits for
                // this, so the next try is soon enough.
                Err(e @ StoreError::InUse { .. }) => Err(e),
                Err(e) if e.is_full() => Err(e),
                Err(e) => rebuild(&self.open, &self.path, &snapshot, &e.to_string()),
                Ok(database) => Ok(database),
            }
        });
        match reopened {
            Ok(database) => {
                tracing::info!(path = %self.path.display(), "the database is open again");
                self.replace(Index::Database(database));
                writer.failed_at = None;
            }
            Err(error) => tracing::warn!(%error, "the database does not open yet, records are kept in the journal"),
        }
    }

    fn checkpoint(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let now = JournalSnapshot { sequence: writer.sequence, records: self.records(writer)? };
        writer.guard.checkpoint(&now)
    }

    /// All records, under the lock.
    fn records(&self, writer: &mut Writer) -> Result<Records, StoreError> {
        let found = match &*self.index.read().unwrap_or_else(PoisonError::into_inner) {
            Index::Database(database) => catch_panic(&self.path, || database.load()).ok(),
            Index::Memory(records) => Some(records.clone()),
            Index::Missing => None,
        };
        found.map_or_else(|| writer.guard.replay().map(|snapshot| snapshot.records), Ok)
    }

    /// Applies a commit that the journal has to the index.
    fn update_index(&self, writer: &mut Writer, batch: &Batch) {
        let result = match &*self.index.read().unwrap_or_else(PoisonError::into_inner) {
            Index::Database(database) => {
                Some(catch_panic(&self.path, || database.commit_numbered(writer.sequence, batch)))
            }
            Index::Memory(_) | Index::Missing => None,
        };
        match result {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "the database failed, records are looked up in memory until it opens again");
                if let Err(error) = self.fall_back(writer) {
                    tracing::error!(%error, "the journal cannot be read");
                }
            }
            None => {
                if let Index::Memory(records) = &mut *self.index.write().unwrap_or_else(PoisonError::into_inner) {
                    batch.apply(records);
                }
            }
        }
    }
}

impl Store for DurableStore {
    fn load(&self) -> Result<Records, StoreError> {
        self.read(|database| database.load(), Records::clone)
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|database| database.get(key), |records| records.get(key).cloned())
    }

    fn scan(&self, prefix: &str) -> Result<Records, StoreError> {
        self.read(|database| database.scan(prefix), |records| with_prefix(records, prefix))
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut writer = self.writer();
        self.recover(&mut writer);
        if writer.guard.is_long()
            && let Err(error) = self.checkpoint(&mut writer)
        {
            // Whether there is space for the commit itself, the journal says.
            tracing::warn!(%error, "cannot write a checkpoint, the journal grows");
        }
        let sequence = writer.sequence + 1;
        writer.guard.append(sequence, batch)?;
        writer.sequence = sequence;
        self.update_index(&mut writer, batch);
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        let mut writer = self.writer();
        self.checkpoint(&mut writer)?;
        match &*self.index.read().unwrap_or_else(PoisonError::into_inner) {
            Index::Database(database) => catch_panic(&self.path, || database.close()),
            // The next start brings the database in line.
            Index::Memory(_) | Index::Missing => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "durable/tests.rs"]
mod tests;
