//! Writing files so that neither a crash nor a full disk leaves half of one behind.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rondo_methods::MethodError;

/// Writes a tensor file (see `Job::write_update`) and answers its size in bytes.
pub type WriteTensors<'a> = dyn Fn(&Path) -> Result<u64, MethodError> + 'a;

/// Where the spool writes; a port, so that tests can fill the disk.
pub trait Disk: Send + Sync {
    /// Lets `write` make a tensor file at `path`; it returns once the file is on the disk.
    fn tensors(&self, path: &Path, write: &WriteTensors<'_>) -> Result<u64, MethodError>;

    /// Writes a small file and returns once it is on the disk.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn tensors(&self, path: &Path, write: &WriteTensors<'_>) -> Result<u64, MethodError> {
        write(path)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    }
}

/// Removes a file or folder; that it is not there is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
