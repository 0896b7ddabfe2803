//! What every store must do. [`check_store`] is run on each backend; a new backend adds one call,
//! no test code.

use super::{Batch, Records, Store};

fn batch(changes: &[(&str, Option<&str>)]) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(*key, *value),
            None => batch.delete(*key),
        }
    }
    batch
}

fn records(pairs: &[(&str, &str)]) -> Records {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect()
}

/// Runs the whole suite. `reopen` closes the store it is given, abruptly, and opens it again; the
/// first call gets none.
///
/// # Panics
/// When the store breaks a rule; the message says which.
pub(super) fn check_store<S: Store>(mut reopen: impl FnMut(Option<S>) -> S) {
    let store = reopen(None);
    assert_eq!(store.load().expect("load"), Records::new(), "a new store is empty");
    assert_eq!(store.get("a").expect("get"), None, "a missing record reads as none");

    store.commit(&batch(&[("run/b", Some("2")), ("run/a", Some("1")), ("runner", Some("x"))])).expect("commit");
    assert_eq!(store.get("run/a").expect("get"), Some(b"1".to_vec()), "a commit is visible at once");
    assert_eq!(
        store.scan("run/").expect("scan"),
        records(&[("run/a", "1"), ("run/b", "2")]),
        "a scan keeps to its prefix"
    );
    assert_eq!(store.scan("nothing").expect("scan"), Records::new(), "a scan may find nothing");

    let store = reopen(Some(store));
    let all = records(&[("run/a", "1"), ("run/b", "2"), ("runner", "x")]);
    assert_eq!(store.load().expect("load"), all, "a commit survives an abrupt stop");

    store.commit(&batch(&[("run/a", None), ("run/b", Some("3")), ("run/missing", None)])).expect("commit");
    let store = reopen(Some(store));
    let all = records(&[("run/b", "3"), ("runner", "x")]);
    assert_eq!(store.load().expect("load"), all, "deletes and overwrites survive; deleting nothing is no error");

    let mut twice = batch(&[("k", Some("first"))]);
    twice.extend(batch(&[("k", Some("last"))]));
    store.commit(&twice).expect("commit");
    assert_eq!(store.get("k").expect("get"), Some(b"last".to_vec()), "the later change of a batch holds");

    store.commit(&Batch::new()).expect("an empty commit is allowed");
    let large = "y".repeat(200_000);
    store.commit(&batch(&[("large", Some(&large)), ("", Some("empty key")), ("empty", Some(""))])).expect("commit");
    let store = reopen(Some(store));
    assert_eq!(store.get("large").expect("get").map(|v| v.len()), Some(large.len()), "large values come back");
    assert_eq!(store.get("").expect("get"), Some(b"empty key".to_vec()), "the empty key is a key");
    assert_eq!(store.get("empty").expect("get"), Some(Vec::new()), "an empty value is a value");

    for n in 0..100 {
        store
            .commit(&batch(&[("counter", Some(&n.to_string())), (&format!("many/{n:03}"), Some("v"))]))
            .expect("commit");
    }
    let store = reopen(Some(store));
    assert_eq!(store.get("counter").expect("get"), Some(b"99".to_vec()), "the last of many commits is there");
    assert_eq!(store.scan("many/").expect("scan").len(), 100, "so are all before it");
    store.close().expect("close");
}

/// What a store must do on a disk that fails. `fail` lets every later write fail, or not any more;
/// `reopen` as for [`check_store`], with a disk that works.
///
/// # Panics
/// When the store breaks a rule; the message says which.
pub(super) fn check_failing_disk<S: Store>(mut reopen: impl FnMut(Option<S>) -> S, fail: impl Fn(bool)) {
    let store = reopen(None);
    let first = batch(&[("a", Some("1")), ("b", Some("1"))]);
    store.commit(&first).expect("commit");
    let mut expected = Records::new();
    first.apply(&mut expected);

    for pass in 0..3 {
        fail(true);
        for n in 0..3 {
            let value = format!("{pass}.{n}");
            let next = batch(&[("a", Some(&value)), ("b", None), (&format!("new/{value}"), Some("x"))]);
            // Either it says yes and the commit is there, or it says no and nothing of it is.
            if store.commit(&next).is_ok() {
                next.apply(&mut expected);
            }
            assert_eq!(store.load().expect("load"), expected, "the store shows what it said, pass {value}");
            assert_eq!(store.get("a").expect("get"), expected.get("a").cloned(), "record by record too");
            assert_eq!(
                store.scan("new/").expect("scan").len(),
                expected.len() - 1 - usize::from(expected.contains_key("b"))
            );
        }
        fail(false);
        let after = batch(&[("a", Some("after")), ("b", Some(&pass.to_string()))]);
        store.commit(&after).expect("a commit works again once the disk does, without a restart");
        after.apply(&mut expected);
        assert_eq!(store.load().expect("load"), expected, "so do reads");
    }
    let store = reopen(Some(store));
    assert_eq!(store.load().expect("load"), expected, "an abrupt stop afterwards changes nothing");

    fail(true);
    let last = batch(&[("a", Some("last"))]);
    if store.commit(&last).is_ok() {
        last.apply(&mut expected);
    }
    fail(false);
    let store = reopen(Some(store));
    assert_eq!(store.load().expect("load"), expected, "nor does one right after a failure");
    store.commit(&batch(&[("a", Some("end"))])).expect("commit");
    store.close().expect("close");
}

mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::super::durable::DurableStore;
    use super::super::index::{Database, OpenDatabase};
    use super::super::journal_guard::JournalFile;
    use super::super::mem::MemStore;
    use super::super::sled::SledStore;
    use super::super::{Batch, StoreError};
    use super::*;

    #[derive(Default)]
    struct Faults {
        journal: AtomicBool,
        cut: AtomicBool,
        database: AtomicBool,
        panic: AtomicBool,
    }

    fn on(fault: &AtomicBool) -> bool {
        fault.load(Ordering::SeqCst)
    }

    fn full() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    /// Writes half of what it is given when it fails, as a full disk does.
    struct FailingJournal(Box<dyn JournalFile>, Arc<Faults>);

    impl JournalFile for FailingJournal {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            if on(&self.1.journal) {
                // All of it the first times, so that a flush that failed is met as well.
                let written = if on(&self.1.cut) { bytes.len() / 2 } else { bytes.len() };
                self.0.append(&bytes[..written])?;
                return Err(full());
            }
            self.0.append(bytes)
        }

        fn cut(&mut self, bytes: u64) -> io::Result<()> {
            if on(&self.1.cut) { Err(full()) } else { self.0.cut(bytes) }
        }
    }

    /// Fails as sled does: the batch is applied in memory, the flush fails, and the first failure
    /// is never forgotten.
    struct FailingSled(SledStore, Arc<Faults>, AtomicBool);

    impl Database for FailingSled {
        fn sequence(&self) -> Result<u64, StoreError> {
            self.0.sequence()
        }

        fn commit_numbered(&self, sequence: u64, batch: &Batch) -> Result<(), StoreError> {
            if on(&self.2) {
                return Err(database_full());
            }
            if on(&self.1.database) {
                self.2.store(true, Ordering::SeqCst);
                self.0.commit_numbered(sequence, batch)?;
                assert!(!on(&self.1.panic), "made to panic");
                return Err(database_full());
            }
            self.0.commit_numbered(sequence, batch)
        }
    }

    impl Store for FailingSled {
        fn load(&self) -> Result<Records, StoreError> {
            self.0.load()
        }

        fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
            self.0.get(key)
        }

        fn scan(&self, prefix: &str) -> Result<Records, StoreError> {
            self.0.scan(prefix)
        }

        fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
            self.0.commit(batch)
        }

        fn close(&self) -> Result<(), StoreError> {
            self.0.close()
        }
    }

    fn database_full() -> StoreError {
        StoreError::Database { path: "sled".into(), source: ::sled::Error::Io(full()) }
    }

    fn failing(dir: &Path, faults: &Arc<Faults>) -> DurableStore {
        let for_journal = Arc::clone(faults);
        let faults = Arc::clone(faults);
        let open: OpenDatabase = Box::new(move |path, wait| {
            if on(&faults.database) {
                return Err(database_full());
            }
            Ok(Box::new(FailingSled(SledStore::open_within(path, wait)?, Arc::clone(&faults), AtomicBool::new(false))))
        });
        let wrap = |file| Box::new(FailingJournal(file, for_journal)) as Box<dyn JournalFile>;
        DurableStore::open_on(dir, open, wrap, Duration::ZERO).unwrap()
    }

    fn check_faults(set: impl Fn(&Faults, bool)) {
        let dir = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::default());
        let reopen = |store: Option<DurableStore>| {
            drop(store);
            failing(dir.path(), &faults)
        };
        check_failing_disk(reopen, |failing| set(&faults, failing));
        let broken = std::fs::read_dir(dir.path()).unwrap().flatten();
        assert_eq!(broken.filter(|e| e.file_name().to_string_lossy().contains("broken")).count(), 0);
    }

    #[test]
    fn a_failing_memory_store() {
        let store = Arc::new(MemStore::new());
        let failing = Arc::clone(&store);
        check_failing_disk(
            |given: Option<Arc<MemStore>>| given.unwrap_or_else(|| Arc::clone(&store)),
            |on| failing.fail_commits(on),
        );
    }

    #[test]
    fn a_journal_that_cannot_be_written() {
        check_faults(|faults, on| faults.journal.store(on, Ordering::SeqCst));
    }

    #[test]
    fn a_journal_that_cannot_be_cut_either() {
        check_faults(|faults, on| {
            faults.journal.store(on, Ordering::SeqCst);
            faults.cut.store(on, Ordering::SeqCst);
        });
    }

    #[test]
    fn a_database_that_cannot_be_written() {
        check_faults(|faults, on| faults.database.store(on, Ordering::SeqCst));
    }

    #[test]
    fn a_database_that_panics() {
        check_faults(|faults, on| {
            faults.database.store(on, Ordering::SeqCst);
            faults.panic.store(on, Ordering::SeqCst);
        });
    }

    #[test]
    fn a_disk_that_takes_nothing() {
        check_faults(|faults, on| {
            faults.database.store(on, Ordering::SeqCst);
            faults.journal.store(on, Ordering::SeqCst);
        });
    }
    #[test]
    fn memory() {
        // Memory has no disk to come back from: the same store goes on.
        check_store(|store: Option<MemStore>| store.unwrap_or_default());
    }

    #[test]
    fn sled() {
        let dir = tempfile::tempdir().unwrap();
        check_store(|store: Option<SledStore>| {
            drop(store);
            SledStore::open(dir.path()).unwrap()
        });
    }

    #[test]
    fn sled_with_checkpoint_and_journal() {
        let dir = tempfile::tempdir().unwrap();
        check_store(|store: Option<DurableStore>| {
            drop(store);
            DurableStore::open(dir.path()).unwrap()
        });
    }

    #[test]
    fn rebuilt_from_checkpoint_and_journal_each_time() {
        let dir = tempfile::tempdir().unwrap();
        check_store(|store: Option<DurableStore>| {
            if store.is_some() {
                drop(store);
                std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
            }
            DurableStore::open(dir.path()).unwrap()
        });
    }
}
