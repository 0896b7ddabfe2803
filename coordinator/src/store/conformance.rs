//! What every store must do. [`check_store`] is run on each backend; a new backend adds one call, no test code.

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

/// Runs the whole suite. `reopen` closes the store it is given, abruptly, and opens it again; the first call gets none.
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

#[cfg(test)]
mod tests {
    use super::super::durable::DurableStore;
    use super::super::mem::MemStore;
    use super::super::sled::SledStore;
    use super::*;

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
