//! The guard beside the database: a checkpoint of all records and a journal of the commits since.
//!
//! Both hold frames ([`Frame`]). The checkpoint is one frame, written to a temporary file, flushed and renamed. The journal is appended to and flushed;
//! a torn last frame, from a crash while it was written, is one that nobody was told about, so it is left out. An append
//! that failed is cut off again, so that a commit whose caller was told "failed" does not come back.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::frame::Frame;
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
pub struct Guard {
    directory: PathBuf,
    journal: Box<dyn JournalFile>,
    /// Length of the whole frames.
    journal_bytes: u64,
    checkpoint_bytes: u64,
    /// A failed append may have left bytes behind the whole frames.
    torn: bool,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// What a guard remembers: the number of the last commit and all records after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
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

/// Reads what a directory's guard remembers; `None` when there is no checkpoint. Damage to the checkpoint reads as no
/// checkpoint, damage to the journal ends the replay there.
pub fn recall(directory: &Path) -> Result<Option<Remembered>, StoreError> {
    let path = checkpoint_path(directory);
    let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
    let Some((frame, _)) = Frame::read(&bytes) else {
        tracing::error!(path = %path.display(), "checkpoint is damaged, it is ignored");
        return Ok(None);
    };
    let mut remembered = Remembered { sequence: frame.sequence, records: Records::new() };
    frame.batch.apply(&mut remembered.records);

    let journal = read_if_there(&journal_path(directory))?.unwrap_or_default();
    let mut rest = journal.as_slice();
    while let Some((frame, after)) = Frame::read(rest) {
        rest = after;
        // Commits up to the checkpoint are in it: the journal is emptied only after the checkpoint is in place.
        if frame.sequence > remembered.sequence {
            frame.batch.apply(&mut remembered.records);
            remembered.sequence = frame.sequence;
        }
    }
    if !rest.is_empty() {
        tracing::warn!(bytes = rest.len(), "journal ends in a torn frame, which was never acknowledged");
    }
    Ok(Some(remembered))
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

impl Guard {
    /// Writes a checkpoint of the present records and starts an empty journal.
    pub fn start(directory: &Path, now: &Remembered) -> Result<Self, StoreError> {
        let path = journal_path(directory);
        let journal =
            OpenOptions::new().create(true).append(true).read(true).open(&path).map_err(failed("open", &path))?;
        Self::start_on(directory, Box::new(journal), now)
    }

    /// The same on a journal file that is open already, in append mode.
    pub(super) fn start_on(
        directory: &Path,
        journal: Box<dyn JournalFile>,
        now: &Remembered,
    ) -> Result<Self, StoreError> {
        let directory = directory.to_owned();
        let mut guard = Self { directory, journal, journal_bytes: 0, checkpoint_bytes: 0, torn: false };
        guard.checkpoint(now)?;
        Ok(guard)
    }

    /// Replaces the checkpoint, then empties the journal.
    pub fn checkpoint(&mut self, now: &Remembered) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        for (key, value) in &now.records {
            batch.put(key.clone(), value.clone());
        }
        let bytes = Frame { sequence: now.sequence, batch }.write();
        let path = checkpoint_path(&self.directory);
        replace_file(&path, &bytes).map_err(failed("write", &path))?;
        self.checkpoint_bytes = bytes.len() as u64;

        let journal = journal_path(&self.directory);
        self.journal.cut(0).map_err(failed("empty", &journal))?;
        self.journal_bytes = 0;
        self.torn = false;
        Ok(())
    }

    /// Adds a commit to the journal and flushes it. On an error the commit is not in the journal: what was written of it
    /// is cut off at once or, when the disk refuses that too, before the next append.
    pub fn append(&mut self, sequence: u64, batch: &Batch) -> Result<(), StoreError> {
        let bytes = Frame { sequence, batch: batch.clone() }.write();
        self.mend()?;
        let path = journal_path(&self.directory);
        if let Err(error) = self.journal.append(&bytes) {
            self.torn = true;
            if let Err(error) = self.mend() {
                tracing::error!(%error, "a journal that was not written whole cannot be cut yet");
            }
            return Err(failed("append to", &path)(error));
        }
        self.journal_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Cuts off what a failed append left.
    fn mend(&mut self) -> Result<(), StoreError> {
        if self.torn {
            let path = journal_path(&self.directory);
            self.journal.cut(self.journal_bytes).map_err(failed("cut", &path))?;
            self.torn = false;
        }
        Ok(())
    }

    /// What the files remember now.
    pub fn recall(&mut self) -> Result<Remembered, StoreError> {
        self.mend()?;
        recall(&self.directory)?.ok_or_else(|| {
            let gone = io::Error::new(io::ErrorKind::NotFound, "the checkpoint is gone or damaged");
            failed("read", &checkpoint_path(&self.directory))(gone)
        })
    }

    /// True when the journal has grown past the checkpoint by so much that a new checkpoint is cheaper to keep.
    pub fn is_long(&self) -> bool {
        const LEAST_BYTES: u64 = 1 << 20;
        self.journal_bytes > LEAST_BYTES.max(4 * self.checkpoint_bytes)
    }
}

/// Writes a whole file: temporary, flush, rename, flush of the directory. Readers see the old one or the new one.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
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
        assert_eq!(recall(dir.path()).unwrap(), None);
        let mut guard = Guard::start(dir.path(), &Remembered::default()).unwrap();
        guard.append(1, &batch("a", "1")).unwrap();
        let mut second = batch("a", "2");
        second.put("b", "x");
        guard.append(2, &second).unwrap();
        let mut third = Batch::new();
        third.delete("b");
        guard.append(3, &third).unwrap();
        let remembered = recall(dir.path()).unwrap().unwrap();
        assert_eq!(remembered.sequence, 3);
        assert_eq!(remembered.records, Records::from([("a".into(), b"2".to_vec())]));

        guard.checkpoint(&remembered).unwrap();
        assert_eq!(std::fs::metadata(journal_path(dir.path())).unwrap().len(), 0);
        assert_eq!(recall(dir.path()).unwrap().unwrap(), remembered);
    }

    #[test]
    fn a_journal_cut_at_any_byte_gives_a_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let mut guard = Guard::start(dir.path(), &Remembered::default()).unwrap();
        for n in 1..=3 {
            guard.append(n, &batch("n", &n.to_string())).unwrap();
        }
        let whole = std::fs::read(journal_path(dir.path())).unwrap();
        let frame = whole.len() / 3;
        for cut in 0..whole.len() {
            std::fs::write(journal_path(dir.path()), &whole[..cut]).unwrap();
            let remembered = recall(dir.path()).unwrap().unwrap();
            assert_eq!(remembered.sequence, (cut / frame) as u64, "cut at {cut}");
        }
    }

    #[test]
    fn damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let now = Remembered { sequence: 1, records: Records::from([("a".into(), b"1".to_vec())]) };
        Guard::start(dir.path(), &now).unwrap();
        let path = checkpoint_path(dir.path());
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(recall(dir.path()).unwrap(), None);
    }
}
