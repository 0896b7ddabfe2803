//! The head file: how far a ledger has come, in a small file of its own beside it (`7 blake3:...`:
//! the number of entries and the hash of the newest).
//!
//! The chain of hashes shows every edit but these: the last lines dropped, the file deleted, an
//! older copy in its place. The head shows those. What a crash may leave behind, in the order of a
//! release (entry, flush, head, flush, answer):
//!
//! - the entry torn, the head before it: nobody was answered, the
//!   torn line is cleared away at the next start;
//! - the entry whole, the head before it: the ledger is one ahead. Nobody was answered, and the
//!   entry counts all the same, for that errs on the safe side; the head is renewed;
//! - the head half written: it is written beside the old one
//!   and renamed, so the old one stands, as above;
//! - the head new: both agree, whether or not the answer still got out.
//!
//! A head that cannot be written has its entry cut off again, and a crash in that is one of the
//! above. A new ledger has its head, of no entries, before its first entry. So no crash leaves a
//! ledger behind its head, or one with entries and without a head: those are refused. A ledger more
//! than one ahead was copied while it grew, and has lost nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::chain::Head;

/// Where a ledger's head is kept.
#[derive(Debug, Clone)]
pub(super) struct HeadFile {
    pub(super) path: PathBuf,
}

/// What a head file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    /// There is none.
    Missing,
    /// It is not what was written.
    Damaged,
    /// The head.
    At(Head),
}

/// A head that was not written.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) source: io::Error,
    /// Whether the head before it stands for certain.
    pub(super) old_stands: bool,
}

impl HeadFile {
    /// That of a ledger.
    pub(super) fn beside(ledger: &Path) -> Self {
        Self { path: ledger.with_extension("head") }
    }

    pub(super) fn read(&self) -> io::Result<Recorded> {
        match fs::read(&self.path) {
            Ok(bytes) => {
                Ok(std::str::from_utf8(&bytes).ok().and_then(Head::parse).map_or(Recorded::Damaged, Recorded::At))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Recorded::Missing),
            Err(error) => Err(error),
        }
    }

    /// Replaces it as a whole, durably.
    pub(super) fn write(&self, head: Head) -> Result<(), Unwritten> {
        let new = self.path.with_extension("head.new");
        let placed = File::create(&new)
            .and_then(|mut file| {
                file.write_all(format!("{}\n", head.line()).as_bytes()).and_then(|()| file.sync_data())
            })
            .and_then(|()| fs::rename(&new, &self.path));
        placed.map_err(|source| Unwritten { source, old_stands: true })?;
        sync_folder_of(&self.path).map_err(|source| Unwritten { source, old_stands: false })
    }
}

/// Makes a file's name durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        // Only Unix lets a folder be opened.
        Some(folder) if cfg!(unix) => {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder)?.sync_all()
        }
        _ => Ok(()),
    }
}
