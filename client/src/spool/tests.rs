use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rondo_methods::Tensor;
use rondo_proto::run_file::Dtype;

use super::*;
use crate::disk::LocalDisk;

fn key(round: u32, attempt: u32) -> Key {
    Key { run: RunId::new("sentiment-1").unwrap(), round, attempt }
}

fn facts() -> Facts {
    let before = Some(v1::Evaluation { loss: 0.5, accuracy: 0.75, examples: 4, ..Default::default() });
    Facts {
        examples: 9,
        train_loss: 0.1 + 0.2,
        train_seconds: 1.5,
        rank: 4,
        base_version: 2,
        before,
        charge: Charge::None,
    }
}

fn open(root: &Path) -> Spool {
    Spool::open(root.join("spool"), Box::new(LocalDisk)).unwrap()
}

fn put(spool: &Spool, key: &Key, value: f32) -> Result<Entry, SpoolError> {
    let tensors = [("a.lora_B".to_owned(), Tensor { shape: vec![1000], data: vec![value; 1000] })].into();
    let write = |path: &Path| Ok(rondo_methods::file::write(path, &tensors, Dtype::F32, &BTreeMap::new())?);
    spool.put(key, &facts(), &write)
}

#[test]
fn entries_survive_a_restart_until_they_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let first = put(&open(dir.path()), &key(1, 1), 1.0).unwrap();
    assert_eq!(first.digest, Digest::of(&fs::read(&first.path).unwrap()));
    assert_eq!(first.bytes, fs::metadata(&first.path).unwrap().len());
    assert_eq!(first.path, dir.path().join("spool/sentiment-1/1.1/update.safetensors"));
    put(&open(dir.path()), &key(2, 1), 2.0).unwrap();

    let spool = open(dir.path());
    let found = spool.find(&key(1, 1)).unwrap().unwrap();
    assert_eq!(found, first);
    assert_eq!(spool.find(&key(1, 2)).unwrap(), None);
    spool.mark_accepted(&found).unwrap();
    assert!(open(dir.path()).find(&key(1, 1)).unwrap().unwrap().accepted);
    assert_eq!(spool.list().unwrap().iter().map(|entry| entry.key.round).collect::<Vec<_>>(), [1, 2]);

    spool.remove(&key(1, 1)).unwrap();
    spool.remove(&key(1, 1)).unwrap();
    spool.remove(&key(2, 1)).unwrap();
    assert!(spool.list().unwrap().is_empty());
    assert!(!dir.path().join("spool/sentiment-1").exists());
}

#[test]
fn what_a_crash_left_half_done_is_cleared_and_damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), &key(1, 1), 1.0).unwrap();
    let half = dir.path().join("spool/.new-sentiment-1-2.1");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("update.safetensors"), b"tw").unwrap();

    let spool = open(dir.path());
    assert!(!half.exists());
    assert_eq!(spool.list().unwrap().len(), 1);

    fs::write(dir.path().join("spool/sentiment-1/1.1/update.safetensors"), b"one").unwrap();
    assert_eq!(spool.find(&key(1, 1)).unwrap(), None);
    assert!(spool.list().unwrap().is_empty());
}

/// A disk with room for so many bytes more.
struct Full(Arc<AtomicI64>);

impl Full {
    /// Lets a file be written and cuts it off where the room ends.
    fn fit(&self, path: &Path) -> io::Result<()> {
        let size = fs::metadata(path)?.len() as i64;
        let room = self.0.fetch_sub(size, Ordering::SeqCst).max(0);
        if room < size {
            File::options().write(true).open(path)?.set_len(room as u64)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Disk for Full {
    fn tensors(&self, path: &Path, write: &WriteTensors<'_>) -> Result<u64, MethodError> {
        let bytes = LocalDisk.tensors(path, write)?;
        self.fit(path).map_err(|source| FileError::Io { path: path.to_owned(), source })?;
        Ok(bytes)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        LocalDisk.write(path, content)?;
        self.fit(path)
    }
}

#[test]
fn a_full_disk_is_reported_and_loses_nothing_wherever_it_strikes() {
    let dir = tempfile::tempdir().unwrap();
    let whole = put(&open(dir.path()), &key(1, 1), 1.0).unwrap().bytes as i64;
    let room = Arc::new(AtomicI64::new(0));
    let spool = Spool::open(dir.path().join("spool"), Box::new(Full(Arc::clone(&room)))).unwrap();
    // Nothing, half of the tensors, all of the tensors, half of the record.
    for bytes in [0, 2000, whole, whole + 100] {
        room.store(bytes, Ordering::SeqCst);
        let error = put(&spool, &key(2, 1), 2.0).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, SpoolError::NoSpace { .. }), "{message}");
        assert!(message.contains("no space left for the update of run sentiment-1, round 2, attempt 1"), "{message}");
        assert_eq!(spool.list().unwrap().len(), 1);
        assert_eq!(spool.find(&key(2, 1)).unwrap(), None);
        assert!(spool.find(&key(1, 1)).unwrap().is_some());
        assert_eq!(fs::read_dir(dir.path().join("spool")).unwrap().count(), 1, "nothing unfinished is left");
    }
    room.store(100_000, Ordering::SeqCst);
    put(&spool, &key(2, 1), 2.0).unwrap();
    assert_eq!(spool.list().unwrap().len(), 2);
}

/// A crash while an update is put under another attempt leaves its folder moved and its record as
/// it was; an earlier version left the record changed and the folder where it was.
#[test]
fn a_crash_while_an_update_is_readdressed_leaves_it_whole() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let entry = put(&spool, &key(1, 1), 1.0).unwrap();
    let entry = spool.mark_paid(entry, v1::PrivacyReport { steps: 3, ..Default::default() }).unwrap();
    spool.mark_accepted(&entry).unwrap();
    let folder = dir.path().join("spool/sentiment-1");
    let is_whole = |key: &Key| {
        let spool = open(dir.path());
        let found = spool.find(key).unwrap().unwrap();
        assert_eq!(spool.list().unwrap(), std::slice::from_ref(&found));
        assert_eq!((&found.key, found.accepted, &found.facts.charge), (key, false, &entry.facts.charge));
        assert_eq!(Digest::of(&fs::read(&found.path).unwrap()), entry.digest);
        // What the next attempt asks for is found, and goes on from there.
        let next = Key { attempt: key.attempt + 1, ..key.clone() };
        let moved = spool.readdress(&found, &next).unwrap();
        assert_eq!(spool.find(&next).unwrap().unwrap(), moved);
        assert_eq!(spool.find(key).unwrap(), None);
    };
    fs::rename(folder.join("1.1"), folder.join("1.2")).unwrap();
    is_whole(&key(1, 2));
    let meta = folder.join("1.3").join(META);
    let text = fs::read_to_string(&meta).unwrap();
    fs::write(&meta, text.replace("\"attempt\": 3", "\"attempt\": 4")).unwrap();
    is_whole(&key(1, 3));
    // A record of another round is of something else.
    fs::rename(folder.join("1.4"), folder.join("2.1")).unwrap();
    assert!(spool.list().unwrap().is_empty());
    assert_eq!(spool.find(&key(2, 1)).unwrap(), None);
}
