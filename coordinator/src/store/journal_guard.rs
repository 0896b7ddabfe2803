//! The checkpoint of all records and the journal of the commits since, beside the database.
//!
//! Both files hold [`JournalRecord`]s. The checkpoint is one record; it is replaced as a whole. The
//! journal is appended to and flushed. A crash while a record was written leaves a torn last one.
//! Its commit was never answered, so the replay leaves it out. An append that failed is cut off
//! again, so that a commit whose caller got an error does not come back.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rondo_proto::files::{self, FileAccess};

use super::journal_record::JournalRecord;
use super::{Batch, Records, StoreError};

/// The file that commits are appended to; a trait, so that tests can let a disk fail.
pub(super) trait JournalFile: Send {
    /// Writes at the end and flushes to disk.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to a length and flushes that.
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
}

impl JournalFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)?;
        self.sync_data()
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)?;
        self.sync_all()
    }
}

/// The two files of a store directory.
pub struct JournalGuard {
    directory: PathBuf,
    journal: Box<dyn JournalFile>,
    /// Length of the whole records.
    journal_bytes: u64,
    checkpoint_bytes: u64,
    /// A failed append may have left bytes behind the whole records.
    torn: bool,
}

impl fmt::Debug for JournalGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalGuard").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// The records as of a commit, and the number of that commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalSnapshot {
    /// Number of the last commit.
    pub sequence: u64,
    /// Records as of then.
    pub records: Records,
}

fn checkpoint_path(directory: &Path) -> PathBuf {
    directory.join("checkpoint")
}

fn journal_path(directory: &Path) -> PathBuf {
    directory.join("journal")
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { action, path, source }
}

/// Reads the checkpoint of a directory and replays the journal; `None` when there is no checkpoint.
/// Damage to the checkpoint reads as no checkpoint. Damage to the journal ends the replay there.
///
/// # Errors
/// A file that is there cannot be read.
pub fn replay(directory: &Path) -> Result<Option<JournalSnapshot>, StoreError> {
    let path = checkpoint_path(directory);
    let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
    let Some((record, _)) = JournalRecord::read(&bytes) else {
        tracing::error!(path = %path.display(), "checkpoint is damaged, it is ignored");
        return Ok(None);
    };
    let mut snapshot = JournalSnapshot { sequence: record.sequence, records: Records::new() };
    record.batch.apply(&mut snapshot.records);

    let journal = read_if_there(&journal_path(directory))?.unwrap_or_default();
    let mut rest = journal.as_slice();
    while let Some((record, after)) = JournalRecord::read(rest) {
        rest = after;
        // Commits up to the checkpoint are in it: the journal is emptied only after the checkpoint
        // is in place.
        if record.sequence > snapshot.sequence {
            record.batch.apply(&mut snapshot.records);
            snapshot.sequence = record.sequence;
        }
    }
    if !rest.is_empty() {
        tracing::warn!(bytes = rest.len(), "journal ends in a torn record, which was never acknowledged");
    }
    Ok(Some(snapshot))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match File::open(path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(failed("read", path))?;
            Ok(Some(bytes))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("open", path)(e)),
    }
}

impl JournalGuard {
    /// Writes a checkpoint of the present records and starts an empty journal.
    ///
    /// # Errors
    /// The journal cannot be opened or emptied, or the checkpoint cannot be written.
    pub fn start(directory: &Path, now: &JournalSnapshot) -> Result<Self, StoreError> {
        let path = journal_path(directory);
        let journal =
            OpenOptions::new().create(true).append(true).read(true).open(&path).map_err(failed("open", &path))?;
        Self::start_on(directory, Box::new(journal), now)
    }

    /// The same on a journal file that is open already, in append mode.
    pub(super) fn start_on(
        directory: &Path,
        journal: Box<dyn JournalFile>,
        now: &JournalSnapshot,
    ) -> Result<Self, StoreError> {
        let directory = directory.to_owned();
        let mut guard = Self { directory, journal, journal_bytes: 0, checkpoint_bytes: 0, torn: false };
        guard.checkpoint(now)?;
        Ok(guard)
    }

    /// Replaces the checkpoint, then empties the journal.
    ///
    /// # Errors
    /// The checkpoint cannot be written, or the journal cannot be emptied.
    pub fn checkpoint(&mut self, now: &JournalSnapshot) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        for (key, value) in &now.records {
            batch.put(key.clone(), value.clone());
        }
        let bytes = JournalRecord { sequence: now.sequence, batch }.write();
        let path = checkpoint_path(&self.directory);
        files::replace(&path, &bytes, FileAccess::Everyone).map_err(failed("write", &path))?;
        self.checkpoint_bytes = bytes.len() as u64;

        let journal = journal_path(&self.directory);
        self.journal.cut(0).map_err(failed("empty", &journal))?;
        self.journal_bytes = 0;
        self.torn = false;
        Ok(())
    }

    /// Adds a commit to the journal and flushes it. On an error the commit is not in the journal:
    /// what was written of it is cut off at once or, when the disk refuses that too, before the
    /// next append.
    ///
    /// # Errors
    /// The journal cannot be written or flushed, or the rest of a failed append cannot be cut off.
    pub fn append(&mut self, sequence: u64, batch: &Batch) -> Result<(), StoreError> {
        let bytes = JournalRecord { sequence, batch: batch.clone() }.write();
        self.repair()?;
        let path = journal_path(&self.directory);
        if let Err(error) = self.journal.append(&bytes) {
            self.torn = true;
            if let Err(error) = self.repair() {
                tracing::error!(%error, "a journal that was not written whole cannot be cut yet");
            }
            return Err(failed("append to", &path)(error));
        }
        self.journal_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Cuts off what a failed append left.
    fn repair(&mut self) -> Result<(), StoreError> {
        if self.torn {
            let path = journal_path(&self.directory);
            self.journal.cut(self.journal_bytes).map_err(failed("cut", &path))?;
            self.torn = false;
        }
        Ok(())
    }

    /// Reads both files again.
    ///
    /// # Errors
    /// A file cannot be read, the checkpoint is gone or damaged, or the rest of a failed append
    /// cannot be cut off.
    pub fn replay(&mut self) -> Result<JournalSnapshot, StoreError> {
        self.repair()?;
        replay(&self.directory)?.ok_or_else(|| {
            let gone = io::Error::new(io::ErrorKind::NotFound, "the checkpoint is gone or damaged");
            failed("read", &checkpoint_path(&self.directory))(gone)
        })
    }

    /// True when the journal has grown past the checkpoint by so much that a new checkpoint is
    /// cheaper to keep.
    pub fn is_long(&self) -> bool {
        const LEAST_BYTES: u64 = 1 << 20;
        self.journal_bytes > LEAST_BYTES.max(4 * self.checkpoint_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(key: &str, value: &str) -> Batch {
        let mut batch = Batch::new();
        batch.put(key, value);
        batch
    }

    #[test]
    fn checkpoint_and_journal_are_replayed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(replay(dir.path()).unwrap(), None);
        let mut guard = JournalGuard::start(dir.path(), &JournalSnapshot::default()).unwrap();
        guard.append(1, &batch("a", "1")).unwrap();
        let mut second = batch("a", "2");
        second.put("b", "x");
        guard.append(2, &second).unwrap();
        let mut third = Batch::new();
        third.delete("b");
        guard.append(3, &third).unwrap();
        let snapshot = replay(dir.path()).unwrap().unwrap();
        assert_eq!(snapshot.sequence, 3);
        assert_eq!(snapshot.records, Records::from([("a".into(), b"2".to_vec())]));

        guard.checkpoint(&snapshot).unwrap();
        assert_eq!(std::fs::metadata(journal_path(dir.path())).unwrap().len(), 0);
        assert_eq!(replay(dir.path()).unwrap().unwrap(), snapshot);
    }

    #[test]
    fn a_journal_cut_at_any_byte_gives_a_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let mut guard = JournalGuard::start(dir.path(), &JournalSnapshot::default()).unwrap();
        for n in 1..=3 {
            guard.append(n, &batch("n", &n.to_string())).unwrap();
        }
        let whole = std::fs::read(journal_path(dir.path())).unwrap();
        let length = whole.len() / 3;
        for cut in 0..whole.len() {
            std::fs::write(journal_path(dir.path()), &whole[..cut]).unwrap();
            let snapshot = replay(dir.path()).unwrap().unwrap();
            assert_eq!(snapshot.sequence, (cut / length) as u64, "cut at {cut}");
        }
    }

    #[test]
    fn damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let now = JournalSnapshot { sequence: 1, records: Records::from([("a".into(), b"1".to_vec())]) };
        JournalGuard::start(dir.path(), &now).unwrap();
        let path = checkpoint_path(dir.path());
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(replay(dir.path()).unwrap(), None);
    }
}
