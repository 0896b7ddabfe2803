//! The store the coordinator runs on: sled, guarded by a checkpoint and a journal.
//!
//! A commit goes to sled, is flushed, then to the journal, is flushed, and only then counts. When sled does not open,
//! or opens at an older commit than the journal has, its folder is kept aside and the tree is rebuilt from the guard:
//! no acknowledged commit is lost.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::checkpoint::{self, Guard, Remembered};
use super::sled::SledStore;
use super::{Batch, Records, Store, StoreError};

/// Sled with its guard, in one directory.
pub struct DurableStore {
    sled: SledStore,
    writing: Mutex<Writing>,
}

#[derive(Debug)]
struct Writing {
    guard: Guard,
    sequence: u64,
    /// The journal failed: it may end in a torn frame, so it has to be replaced before it is appended to.
    journal_failed: bool,
}

impl fmt::Debug for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // sled's own Debug prints every page.
        f.debug_struct("DurableStore").field("writing", &self.writing).finish_non_exhaustive()
    }
}

impl DurableStore {
    /// Opens the store of a directory, makes it when there is none, rebuilds it when it is broken.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory).map_err(|source| StoreError::File {
            action: "make",
            path: directory.to_owned(),
            source,
        })?;
        let remembered = checkpoint::recall(directory)?;
        let path = directory.join("sled");
        let sled = match (open_whole(&path), remembered) {
            (Ok((sled, sequence)), None) => {
                tracing::debug!(sequence, "store opened");
                sled
            }
            (Ok((sled, sequence)), Some(remembered)) if sequence >= remembered.sequence => sled,
            (Ok((sled, sequence)), Some(remembered)) => {
                // Closed before its folder is moved.
                drop(sled);
                let problem = format!("it stands at commit {sequence}, the journal at {}", remembered.sequence);
                rebuild(&path, &remembered, &problem)?
            }
            (Err(e @ StoreError::InUse { .. }), _) => return Err(e),
            (Err(e), Some(remembered)) => rebuild(&path, &remembered, &e.to_string())?,
            (Err(e), None) => return Err(StoreError::Lost { path, problem: e.to_string() }),
        };
        let now = Remembered { sequence: sled.sequence()?, records: sled.load()? };
        let guard = Guard::start(directory, &now)?;
        let writing = Writing { guard, sequence: now.sequence, journal_failed: false };
        Ok(Self { sled, writing: Mutex::new(writing) })
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checkpoint(&self, writing: &mut Writing) -> Result<(), StoreError> {
        let now = Remembered { sequence: writing.sequence, records: self.sled.load()? };
        writing.guard.checkpoint(&now)?;
        writing.journal_failed = false;
        Ok(())
    }
}

/// Opens sled and reads it through once: a database that opens and cannot be read is as broken as one that does not open.
fn open_whole(path: &Path) -> Result<(SledStore, u64), StoreError> {
    // sled 0.34 asserts where it finds damage.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let sled = SledStore::open(path)?;
        sled.load()?;
        let sequence = sled.sequence()?;
        Ok::<_, StoreError>((sled, sequence))
    }));
    match outcome {
        Ok(Err(e)) if e.to_string().contains("could not acquire lock") => {
            Err(StoreError::InUse { path: path.to_owned() })
        }
        Ok(outcome) => outcome,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(StoreError::Record { key: path.display().to_string(), problem: format!("sled panicked: {said}") })
        }
    }
}

fn rebuild(path: &Path, remembered: &Remembered, problem: &str) -> Result<SledStore, StoreError> {
    let aside = free_name(path);
    tracing::error!(
        path = %path.display(), problem, kept = %aside.display(), sequence = remembered.sequence,
        records = remembered.records.len(), "the database is broken, rebuilding it from the checkpoint and the journal"
    );
    let file_error = |source| StoreError::File { action: "move aside", path: path.to_owned(), source };
    std::fs::rename(path, &aside).map_err(file_error)?;
    let sled = SledStore::open(path)?;
    let mut batch = Batch::new();
    for (key, value) in &remembered.records {
        batch.put(key.clone(), value.clone());
    }
    sled.commit_numbered(remembered.sequence, &batch)?;
    Ok(sled)
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

impl Store for DurableStore {
    fn load(&self) -> Result<Records, StoreError> {
        self.sled.load()
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.sled.get(key)
    }

    fn scan(&self, prefix: &str) -> Result<Records, StoreError> {
        self.sled.scan(prefix)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut writing = self.writing();
        if writing.journal_failed || writing.guard.is_long() {
            self.checkpoint(&mut writing)?;
        }
        let sequence = writing.sequence + 1;
        self.sled.commit_numbered(sequence, batch)?;
        writing.sequence = sequence;
        let appended = writing.guard.append(sequence, batch);
        writing.journal_failed = appended.is_err();
        appended
    }

    fn close(&self) -> Result<(), StoreError> {
        self.sled.close()?;
        self.checkpoint(&mut self.writing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &dyn Store, key: &str, value: &str) {
        let mut batch = Batch::new();
        batch.put(key, value);
        store.commit(&batch).unwrap();
    }

    fn broken_folders(dir: &Path) -> usize {
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
        names.filter(|n| n.to_string_lossy().contains("broken")).count()
    }

    #[test]
    fn a_garbled_database_is_rebuilt_with_every_commit() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = DurableStore::open(dir.path()).unwrap();
            put(&store, "a", "1");
            put(&store, "b", "2");
        }
        let db = dir.path().join("sled").join("db");
        std::fs::write(&db, vec![0xa5; 4096]).unwrap();
        std::fs::write(dir.path().join("sled").join("conf"), b"garbage").unwrap();
        let store = DurableStore::open(dir.path()).unwrap();
        assert_eq!(store.load().unwrap(), Records::from([("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())]));
        assert_eq!(broken_folders(dir.path()), 1);
        put(&store, "c", "3");
        drop(store);
        assert_eq!(DurableStore::open(dir.path()).unwrap().load().unwrap().len(), 3);
        assert_eq!(broken_folders(dir.path()), 1);
    }

    #[test]
    fn a_database_that_fell_back_is_rebuilt() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = DurableStore::open(dir.path()).unwrap();
            put(&store, "a", "1");
            put(&store, "a", "2");
        }
        std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
        let store = DurableStore::open(dir.path()).unwrap();
        assert_eq!(store.get("a").unwrap(), Some(b"2".to_vec()));
    }

    #[test]
    fn a_database_without_a_checkpoint_that_does_not_open_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = DurableStore::open(dir.path()).unwrap();
            put(&store, "a", "1");
        }
        std::fs::remove_file(dir.path().join("checkpoint")).unwrap();
        let db = dir.path().join("sled").join("db");
        std::fs::remove_file(&db).unwrap();
        std::fs::create_dir(&db).unwrap();
        let error = DurableStore::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Lost { .. }), "{error}");
        assert_eq!(broken_folders(dir.path()), 0);
    }

    #[test]
    fn a_database_in_use_is_not_taken_for_a_broken_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableStore::open(dir.path()).unwrap();
        put(&store, "a", "1");
        let error = DurableStore::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert_eq!(broken_folders(dir.path()), 0);
    }

    #[test]
    fn a_long_journal_becomes_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableStore::open(dir.path()).unwrap();
        let value = "x".repeat(300_000);
        for _ in 0..12 {
            put(&store, "a", &value);
        }
        let journal = std::fs::metadata(dir.path().join("journal")).unwrap().len();
        assert!(journal < 1_800_000, "{journal}");
    }
}
