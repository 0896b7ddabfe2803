//! The daemon's folder: identity, spool, cache and small records; one daemon at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::decisions::DECISIONS;

/// The privacy ledger's name in a daemon's folder.
pub const LEDGER: &str = "ledger.jsonl";

/// The name of the record of what was sent, in a daemon's folder.
pub const HISTORY: &str = "history.jsonl";
/// The folder of runs' terms, in a daemon's folder.
pub const TERMS: &str = "terms";

/// A daemon's folder, locked for as long as this value lives.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    /// Held open for its lock; the system frees it even after kill -9.
    _lock: File,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// It cannot be made or opened.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The folder or a file in it.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process holds it.
    #[error("{} is in use by another rondo-client; stop that one, or give this one its own --dir", .dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
}

impl Home {
    /// Opens the folder, or makes it, and locks it.
    ///
    /// # Errors
    /// The folder or its lock cannot be made or opened, or another rondo-client holds the lock.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| HomeError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(io(dir))?;
        let path = dir.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(HomeError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(HomeError::Io { path, source }),
        }
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// The folder itself; the identity's files lie in it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Updates not yet settled.
    pub fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// Downloaded blobs.
    pub fn cache(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// Digests of the base models, by file sizes and times.
    pub fn models(&self) -> PathBuf {
        self.dir.join("models.json")
    }

    /// What was set aside and released with privacy.
    pub fn ledger(&self) -> PathBuf {
        self.dir.join(LEDGER)
    }

    /// What was sent.
    pub fn history(&self) -> PathBuf {
        self.dir.join(HISTORY)
    }

    /// The terms of the runs that this client was asked to take part in.
    pub fn terms(&self) -> PathBuf {
        self.dir.join(TERMS)
    }

    /// What people here said to runs.
    pub fn decisions(&self) -> PathBuf {
        self.dir.join(DECISIONS)
    }

    /// What was answered to invitations.
    pub fn answers(&self) -> PathBuf {
        self.dir.join("answers.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Home::open(dir.path()).unwrap();
        let message = Home::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("in use by another rondo-client"), "{message}");
        drop(first);
        Home::open(dir.path()).unwrap();
    }
}
