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
    let asked = Instant::now();
    let error = DurableStore::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    assert!(asked.elapsed() >= LOCK_WAIT, "a lock that is being released would have been waited for");
    assert_eq!(broken_folders(dir.path()), 0);
}

#[test]
fn a_database_whose_handle_is_closing_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = DurableStore::open(dir.path()).unwrap();
    put(&store, "a", "1");
    let closing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(store);
    });
    let store = DurableStore::open(dir.path()).unwrap();
    assert_eq!(store.get("a").unwrap(), Some(b"1".to_vec()));
    assert_eq!(broken_folders(dir.path()), 0);
    closing.join().unwrap();
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
