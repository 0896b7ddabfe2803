//! Tensor files, content-addressed: `blobs/<run>/<digest>`, each written once and never changed.
//!
//! Every run has a folder of its own, so dropping one run's files never takes a file from another
//! and a client that may read a run reads that run alone.

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use rondo_proto::digest::Hasher;
use rondo_proto::{Digest, RunId};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes per part while a file is copied in: what is in memory at a time.
const PART_BYTES: usize = 1 << 20;

/// The blob folder.
#[derive(Debug)]
pub struct Blobs {
    root: PathBuf,
    files: LocalFileSystem,
    /// Held for reading from before a blob is put until the engine references it, and for writing
    /// while blobs are dropped: the same bytes may be dropped for one attempt and put for the next.
    drop_lock: RwLock<()>,
    /// Lets every put fail, as on a full disk.
    #[cfg(test)]
    pub(crate) full: std::sync::atomic::AtomicBool,
}

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The object store failed.
    #[error("blob {digest} of run {run}: {source}")]
    Store {
        /// The run.
        run: RunId,
        /// The blob.
        digest: Digest,
        /// What the object store says.
        #[source]
        source: Box<object_store::Error>,
    },
    /// A file could not be read or a folder not be made.
    #[error("blobs: cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are not those the digest names.
    #[error("blob of run {run}: expected {expected}, the bytes have {got}")]
    Mismatch {
        /// The run.
        run: RunId,
        /// The digest that was announced.
        expected: Digest,
        /// The digest of what came.
        got: Digest,
    },
}

impl BlobError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        rondo_proto::files::is_full(self)
    }
}

fn store_error(run: &RunId, digest: &Digest, source: object_store::Error) -> BlobError {
    BlobError::Store { run: run.clone(), digest: *digest, source: Box::new(source) }
}

fn location(run: &RunId, digest: &Digest) -> Location {
    Location::from_iter([run.as_str().to_owned(), digest.hex()])
}

impl Blobs {
    /// Opens the folder, makes it when there is none, and removes what an abrupt stop left half
    /// written.
    ///
    /// # Errors
    /// The folder cannot be made, listed or opened, or a half-written file cannot be removed.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| BlobError::File { action, path, source }
        };
        std::fs::create_dir_all(root).map_err(failed("make", root))?;
        for run in std::fs::read_dir(root).map_err(failed("list", root))?.flatten() {
            for file in std::fs::read_dir(run.path()).into_iter().flatten().flatten() {
                // The object store writes to `<name>#<n>` and renames.
                if file.file_name().to_string_lossy().contains('#') {
                    std::fs::remove_file(file.path()).map_err(failed("remove", &file.path()))?;
                }
            }
        }
        let files =
            LocalFileSystem::new_with_prefix(root).map_err(|e| failed("open", root)(std::io::Error::other(e)))?;
        Ok(Self {
            root: root.to_owned(),
            files: files.with_fsync(true),
            drop_lock: RwLock::default(),
            #[cfg(test)]
            full: Default::default(),
        })
    }

    /// While it is held no blob is dropped. Hold it from before [`put_file`](Self::put_file) until
    /// the engine references the blob.
    pub async fn lock_for_put(&self) -> RwLockReadGuard<'_, ()> {
        self.drop_lock.read().await
    }

    /// While it is held no blob is put. Hold it while the engine says what it references, and while
    /// the rest is dropped.
    pub async fn lock_for_drop(&self) -> RwLockWriteGuard<'_, ()> {
        self.drop_lock.write().await
    }

    /// Every blob there is, run by run.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn list(&self) -> Result<Vec<(RunId, Digest)>, BlobError> {
        let failed = |source| BlobError::File { action: "list", path: self.root.clone(), source };
        let mut all = Vec::new();
        for folder in std::fs::read_dir(&self.root).map_err(failed)?.flatten() {
            let Ok(run) = RunId::new(folder.file_name().to_string_lossy()) else { continue };
            for file in std::fs::read_dir(folder.path()).map_err(failed)?.flatten() {
                if let Ok(digest) = format!("blake3:{}", file.file_name().to_string_lossy()).parse() {
                    all.push((run.clone(), digest));
                }
            }
        }
        Ok(all)
    }

    /// Where a blob lies, whether it is there or not.
    pub fn path(&self, run: &RunId, digest: &Digest) -> PathBuf {
        self.root.join(run.as_str()).join(digest.hex())
    }

    /// Size in bytes; `None` when the blob is not there.
    ///
    /// # Errors
    /// The blob folder cannot be read.
    pub async fn size(&self, run: &RunId, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match self.files.head(&location(run, digest)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(store_error(run, digest, source)),
        }
    }

    /// Copies a file in under the digest that it is said to have, durably. One that is already
    /// there is left as it is.
    ///
    /// # Errors
    /// The file cannot be read, its bytes do not have the digest, or the blob cannot be written.
    pub async fn put_file(&self, run: &RunId, digest: &Digest, from: &Path) -> Result<(), BlobError> {
        if self.size(run, digest).await?.is_some() {
            return Ok(());
        }
        #[cfg(test)]
        if self.full.load(std::sync::atomic::Ordering::SeqCst) {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(BlobError::File { action: "write", path: self.path(run, digest), source });
        }
        let store_error = |source| store_error(run, digest, source);
        let file = tokio::fs::File::open(from).await.map_err(|source| BlobError::File {
            action: "read",
            path: from.to_owned(),
            source,
        })?;
        let mut upload = self.files.put_multipart(&location(run, digest)).await.map_err(store_error)?;
        match copy(run, digest, from, file, &mut *upload).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // Whatever failed, no half of a file stays.
                self.abandon(upload).await;
                Err(error)
            }
        }
    }

    async fn abandon(&self, mut upload: Box<dyn object_store::MultipartUpload>) {
        if let Err(error) = upload.abort().await {
            tracing::warn!(%error, "a half written blob stays until the next start");
        }
    }

    /// Removes a blob; one that is not there is no error.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub async fn drop_blob(&self, run: &RunId, digest: &Digest) -> Result<(), BlobError> {
        match self.files.delete(&location(run, digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(store_error(run, digest, source)),
        }
    }
}

/// Reads a file part by part into an upload, and completes it when the bytes are those the digest
/// names.
async fn copy(
    run: &RunId,
    digest: &Digest,
    from: &Path,
    mut file: impl AsyncRead + Unpin,
    upload: &mut dyn object_store::MultipartUpload,
) -> Result<(), BlobError> {
    let store_error = |source| store_error(run, digest, source);
    let read_error = |source| BlobError::File { action: "read", path: from.to_owned(), source };
    let mut hasher = Hasher::default();
    loop {
        let mut part = BytesMut::with_capacity(PART_BYTES);
        while part.len() < PART_BYTES && file.read_buf(&mut part).await.map_err(read_error)? > 0 {}
        if part.is_empty() {
            break;
        }
        hasher.update(&part);
        upload.put_part(part.freeze().into()).await.map_err(store_error)?;
    }
    let got = hasher.digest();
    if got != *digest {
        return Err(BlobError::Mismatch { run: run.clone(), expected: *digest, got });
    }
    upload.complete().await.map_err(store_error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunId {
        RunId::new("sentiment-1a2b").unwrap()
    }

    #[tokio::test]
    async fn a_blob_goes_in_comes_back_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let from = dir.path().join("upload");
        std::fs::write(&from, &bytes).unwrap();
        let digest = Digest::of(&bytes);
        assert_eq!(blobs.size(&run(), &digest).await.unwrap(), None);
        blobs.put_file(&run(), &digest, &from).await.unwrap();
        blobs.put_file(&run(), &digest, &from).await.unwrap();
        assert_eq!(blobs.size(&run(), &digest).await.unwrap(), Some(3_000_000));
        assert_eq!(Digest::of_file(&blobs.path(&run(), &digest)).unwrap(), digest);
        assert_eq!(blobs.list().unwrap(), [(run(), digest)]);
        blobs.drop_blob(&run(), &digest).await.unwrap();
        blobs.drop_blob(&run(), &digest).await.unwrap();
        assert_eq!(blobs.size(&run(), &digest).await.unwrap(), None);
    }

    #[tokio::test]
    async fn bytes_with_another_digest_are_refused_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("blobs");
        let blobs = Blobs::open(&root).unwrap();
        let from = dir.path().join("upload");
        std::fs::write(&from, b"these").unwrap();
        let digest = Digest::of(b"those");
        let error = blobs.put_file(&run(), &digest, &from).await.unwrap_err();
        assert!(matches!(error, BlobError::Mismatch { .. }), "{error}");
        assert_eq!(blobs.size(&run(), &digest).await.unwrap(), None);
        assert_eq!(std::fs::read_dir(root.join(run().as_str())).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_to_its_end_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("blobs");
        let blobs = Blobs::open(&root).unwrap();
        // A folder opens as a file and fails at the first read.
        let error = blobs.put_file(&run(), &Digest::of(b"x"), dir.path()).await.unwrap_err();
        assert!(matches!(error, BlobError::File { action: "read", .. }), "{error}");
        assert_eq!(std::fs::read_dir(root.join(run().as_str())).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn half_written_files_are_cleared_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"x");
        let folder = dir.path().join(run().as_str());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{}#1", digest.hex())), b"x").unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        assert_eq!(blobs.size(&run(), &digest).await.unwrap(), None);
    }
}
