//! The store the coordinator runs on: a journal with checkpoints, and sled as the index over it.
//!
//! The journal is the truth. A commit is appended to it and flushed; from then on it counts. An append that failed is cut
//! off again and did not happen. Then the index hears of the commit. When the index fails, on a full disk say, it is
//! dropped and records are looked up in memory, as the journal has them, until the index opens again. At the start an
//! index that is behind the journal is brought in line, and one that does not open is kept aside and rebuilt.

use std::fmt;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::checkpoint::{self, Guard, JournalFile, Remembered};
use super::index::{Database, Index, OpenDatabase, open_whole, rebuild, unharmed};
use super::sled::SledStore;
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
    writing: Mutex<Writing>,
    index: RwLock<Index>,
}

#[derive(Debug)]
struct Writing {
    guard: Guard,
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
    /// Opens the store of a directory, makes it when there is none, rebuilds its database when that is broken.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let open: OpenDatabase = Box::new(|path| Ok(Box::new(SledStore::open(path)?)));
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
        let remembered = checkpoint::recall(directory)?;
        let path = directory.join("sled");
        let (database, now) = match (open_whole(&open, &path), remembered) {
            (Err(e @ StoreError::InUse { .. }), _) => return Err(e),
            // A database that has no room to open is not broken.
            (Err(e), _) if e.is_full() => return Err(e),
            (Err(e), None) => return Err(StoreError::Lost { path, problem: e.to_string() }),
            (Err(e), Some(remembered)) => (rebuild(&open, &path, &remembered, &e.to_string())?, remembered),
            // One commit behind, the process died between the journal and the index. More than that, the index lost some.
            (Ok(opened), Some(remembered)) if opened.sequence + 1 < remembered.sequence => {
                let problem =
                    format!("it stands at commit {}, the journal at {}", opened.sequence, remembered.sequence);
                // Closed before its folder is moved.
                drop(opened);
                (rebuild(&open, &path, &remembered, &problem)?, remembered)
            }
            (Ok(opened), Some(remembered)) if opened.sequence <= remembered.sequence => {
                let database = match opened.follow(&path, &remembered) {
                    Ok(database) => database,
                    Err(e) if e.is_full() => return Err(e),
                    Err(e) => rebuild(&open, &path, &remembered, &e.to_string())?,
                };
                (database, remembered)
            }
            (Ok(opened), remembered) => {
                if let Some(remembered) = remembered {
                    tracing::error!(
                        database = opened.sequence,
                        journal = remembered.sequence,
                        "the journal is damaged, the database has what it lost"
                    );
                }
                let now = Remembered { sequence: opened.sequence, records: opened.records };
                (opened.database, now)
            }
        };
        let journal = directory.join("journal");
        let file = OpenOptions::new().create(true).append(true).read(true).open(&journal);
        let file: Box<dyn JournalFile> = Box::new(file.map_err(failed("open", &journal))?);
        let guard = Guard::start_on(directory, wrap(file), &now)?;
        let writing = Writing { guard, sequence: now.sequence, failed_at: None };
        Ok(Self {
            path,
            open,
            reopen_after,
            writing: Mutex::new(writing),
            index: RwLock::new(Index::Database(database)),
        })
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, index: Index) {
        let before = std::mem::replace(&mut *self.index.write().unwrap_or_else(PoisonError::into_inner), index);
        // A database that failed may fail once more while it closes; that is of no account.
        let closed = unharmed(&self.path, || {
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
            Index::Database(database) => Some(unharmed(&self.path, || from_database(&**database))),
            Index::Memory(records) => Some(Ok(from_memory(records))),
            Index::Missing => None,
        };
        match look() {
            Some(Ok(found)) => Ok(found),
            failed => {
                if let Some(Err(error)) = failed {
                    tracing::error!(%error, "the database cannot be read, the journal is asked");
                }
                let mut writing = self.writing();
                self.fall_back(&mut writing)?;
                drop(writing);
                look().unwrap_or_else(|| {
                    let problem = "neither the database nor the journal could be read".to_owned();
                    Err(StoreError::Lost { path: self.path.clone(), problem })
                })
            }
        }
    }

    /// Drops the database and takes the records from the guard.
    fn fall_back(&self, writing: &mut Writing) -> Result<(), StoreError> {
        writing.failed_at = Some(Instant::now());
        // First of all nobody reads what the database shows.
        self.replace(Index::Missing);
        let remembered = writing.guard.recall()?;
        self.replace(Index::Memory(remembered.records));
        Ok(())
    }

    /// Opens a database that failed again, now and then.
    fn recover(&self, writing: &mut Writing) {
        if writing.failed_at.is_none_or(|at| at.elapsed() < self.reopen_after) {
            return;
        }
        writing.failed_at = Some(Instant::now());
        let reopened = writing.guard.recall().and_then(|remembered| {
            match open_whole(&self.open, &self.path).and_then(|opened| opened.follow(&self.path, &remembered)) {
                // The handle that was dropped may still be closing its files.
                Err(e @ StoreError::InUse { .. }) => Err(e),
                Err(e) if e.is_full() => Err(e),
                Err(e) => rebuild(&self.open, &self.path, &remembered, &e.to_string()),
                Ok(database) => Ok(database),
            }
        });
        match reopened {
            Ok(database) => {
                tracing::info!(path = %self.path.display(), "the database is open again");
                self.replace(Index::Database(database));
                writing.failed_at = None;
            }
            Err(error) => tracing::warn!(%error, "the database does not open yet, records are kept in the journal"),
        }
    }

    fn checkpoint(&self, writing: &mut Writing) -> Result<(), StoreError> {
        let now = Remembered { sequence: writing.sequence, records: self.records(writing)? };
        writing.guard.checkpoint(&now)
    }

    /// All records, under the lock.
    fn records(&self, writing: &mut Writing) -> Result<Records, StoreError> {
        let found = match &*self.index.read().unwrap_or_else(PoisonError::into_inner) {
            Index::Database(database) => unharmed(&self.path, || database.load()).ok(),
            Index::Memory(records) => Some(records.clone()),
            Index::Missing => None,
        };
        found.map_or_else(|| writing.guard.recall().map(|remembered| remembered.records), Ok)
    }

    /// Tells the index of a commit that the journal has.
    fn tell_index(&self, writing: &mut Writing, batch: &Batch) {
        let told = match &*self.index.read().unwrap_or_else(PoisonError::into_inner) {
            Index::Database(database) => {
                Some(unharmed(&self.path, || database.commit_numbered(writing.sequence, batch)))
            }
            Index::Memory(_) | Index::Missing => None,
        };
        match told {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "the database failed, records are looked up in memory until it opens again");
                if let Err(error) = self.fall_back(writing) {
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
        let mut writing = self.writing();
        self.recover(&mut writing);
        if writing.guard.is_long()
            && let Err(error) = self.checkpoint(&mut writing)
        {
            // Whether there is space for the commit itself, the journal says.
            tracing::warn!(%error, "cannot write a checkpoint, the journal grows");
        }
        let sequence = writing.sequence + 1;
        writing.guard.append(sequence, batch)?;
        writing.sequence = sequence;
        self.tell_index(&mut writing, batch);
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        let mut writing = self.writing();
        self.checkpoint(&mut writing)?;
        match &*self.index.read().unwrap_or_else(PoisonError::into_inner) {
            Index::Database(database) => unharmed(&self.path, || database.close()),
            // The next start brings the database in line.
            Index::Memory(_) | Index::Missing => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "durable/tests.rs"]
mod tests;
