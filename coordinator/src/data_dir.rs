//! Where things lie in the data directory, who may serve from it, and files that only their owner
//! may read.
//!
//! ```text
//! DIR/coordinator.toml   url and host names, written last by `init`     DIR/ca/          CA certificate and key
//! DIR/server/            server certificate and key                     DIR/operator/    the first operator's identity
//! DIR/store/             sled, checkpoint, journal                      DIR/blobs/       tensors by run and digest
//! DIR/staging/           uploads that are not whole yet                 DIR/address      where the server listens
//! DIR/lock               held while a coordinator serves                DIR/ledger.jsonl what was released of private runs
//! DIR/ledger.head        how far the ledger has come
//! ```

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rondo_proto::files::{self, FileAccess};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::sled::{LOCK_RETRY, LOCK_WAIT};

/// A data directory.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

/// What `init` decided: the content of `coordinator.toml` in the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitRecord {
    /// Format of this file.
    pub v: u32,
    /// Where clients and operators reach the coordinator, `https://host:port`.
    pub url: String,
    /// Names and addresses in the server certificate.
    pub hosts: Vec<String>,
}

/// Why a file of the data directory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refused.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// `init` was not run here, or did not finish.
    #[error("{path} is not initialised; run `rondo-coordinator init --data-dir {path}` first")]
    NotInitialised {
        /// The data directory.
        path: PathBuf,
    },
    /// `coordinator.toml` is not what `init` writes.
    #[error("{path}: {problem}")]
    InitRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl DataDirError {
    /// For `map_err` after a file operation.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

impl DataDir {
    /// Names a directory; nothing is read or made.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// CA certificate and key.
    pub fn ca(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// Server certificate and key.
    pub fn server(&self) -> PathBuf {
        self.root.join("server")
    }

    /// The first operator's identity.
    pub fn operator(&self) -> PathBuf {
        self.root.join("operator")
    }

    /// Records.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Tensors.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Uploads that are not whole yet, and aggregates in the making.
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// The ledger of what was released in runs with privacy per client.
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger.jsonl")
    }

    /// Text file with the address the server listens on.
    pub fn address(&self) -> PathBuf {
        self.root.join("address")
    }

    /// Makes the folders that hold secrets, records and tensors, and lets nobody but their owner
    /// enter them, whatever the mode of those that are there already.
    ///
    /// # Errors
    /// A folder cannot be made, or its mode cannot be changed.
    pub fn make_private(&self) -> Result<(), DataDirError> {
        for folder in [self.ca(), self.server(), self.store(), self.blobs(), self.staging()] {
            make_private_dir(&folder)?;
            std::fs::set_permissions(&folder, Permissions::from_mode(0o700))
                .map_err(DataDirError::file("change the mode of", &folder))?;
        }
        Ok(())
    }

    fn init_record_path(&self) -> PathBuf {
        self.root.join("coordinator.toml")
    }

    /// True once `init` has finished here.
    pub fn is_initialised(&self) -> bool {
        self.init_record_path().exists()
    }

    /// Reads what `init` decided.
    ///
    /// # Errors
    /// `init` was not run or did not finish here, or the file cannot be read.
    pub fn init_record(&self) -> Result<InitRecord, DataDirError> {
        let path = self.init_record_path();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(DataDirError::NotInitialised { path: self.root.clone() });
            }
            Err(e) => return Err(DataDirError::file("read", &path)(e)),
        };
        toml::from_str(&text).map_err(|e| DataDirError::InitRecord { path, problem: e.to_string() })
    }

    /// Marks the directory as initialised. The last thing `init` does.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_init_record(&self, record: &InitRecord) -> Result<(), DataDirError> {
        let path = self.init_record_path();
        let text = toml::to_string(record)
            .map_err(|e| DataDirError::InitRecord { path: path.clone(), problem: e.to_string() })?;
        files::replace(&path, text.as_bytes(), FileAccess::Everyone).map_err(DataDirError::file("write", &path))
    }

    /// Takes the directory for this process until the lock is dropped; the system drops it when the
    /// process dies. A lock that another process holds is waited for, up to [`LOCK_WAIT`]: a
    /// coordinator that was just stopped still holds it for a moment.
    ///
    /// # Errors
    /// Another process holds the lock ([`StoreError::InUse`]), or the lock file cannot be opened.
    pub fn lock(&self) -> Result<DataDirLock, StoreError> {
        let path = self.root.join("lock");
        let failed = |source| StoreError::File { action: "lock", path: path.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        let give_up = Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(DataDirLock { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => std::thread::sleep(LOCK_RETRY),
                Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: self.root.clone() }),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }
}

/// Held while a coordinator uses the directory.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

/// Makes a folder that only its owner may enter; one that is there is left as it is.
///
/// # Errors
/// The folder cannot be made.
pub fn make_private_dir(path: &Path) -> Result<(), DataDirError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(DataDirError::file("make", path))
}

/// Writes a file, mode 0600 from the first byte on, durably. A file that is there is replaced.
///
/// # Errors
/// The file cannot be written or flushed.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    files::replace(path, bytes, FileAccess::Owner).map_err(DataDirError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_others_may_enter_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let data = DataDir::new(dir.path());
        std::fs::create_dir(data.blobs()).unwrap();
        std::fs::set_permissions(data.blobs(), Permissions::from_mode(0o755)).unwrap();
        data.make_private().unwrap();
        for folder in [data.ca(), data.server(), data.store(), data.blobs(), data.staging()] {
            let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        }
    }

    #[test]
    fn private_files_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let lock = data.lock().unwrap();
        assert!(matches!(data.lock(), Err(StoreError::InUse { .. })));
        drop(lock);
        data.lock().unwrap();
    }

    #[test]
    fn a_lock_that_is_being_released_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let lock = data.lock().unwrap();
        let releasing = std::thread::spawn(move || {
            std::thread::sleep(LOCK_RETRY * 5);
            drop(lock);
        });
        data.lock().unwrap();
        releasing.join().unwrap();
    }

    #[test]
    fn an_empty_directory_says_what_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let error = DataDir::new(dir.path()).init_record().unwrap_err();
        assert!(error.to_string().contains("rondo-coordinator init"), "{error}");
    }
}
