//! Adapters that runs are to start from, between their upload and the run that names them.
//!
//! `start_adapters/<digest>` in the staging folder holds a whole, checked file; it is there for an
//! hour, and not after a restart: whoever creates a run uploads first. A run that names it gets a
//! copy among its own blobs, which lives as long as the run.

mod error;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rondo_methods::StartAdapter;
use rondo_proto::Digest;
use rondo_proto::digest::Hasher;
use rondo_proto::v1::{self, InitialHeader, InitialMessage, initial_message::Part as AdapterPart};
use rondo_wire::transfer::MESSAGE_BYTES;
use tokio::io::AsyncWriteExt;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

pub use error::UploadedAdapterError;
use error::file_error;

/// How long an adapter is kept for the run that names it.
const KEEP: Duration = Duration::from_secs(3600);
/// How long the next message may take: there is one upload at a time.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// The folder of uploaded adapters.
#[derive(Debug)]
pub struct StartAdapters {
    root: PathBuf,
    limit: u64,
    /// Operators are few, so one adapter comes in at a time; that keeps the count of bytes simple.
    receiving: tokio::sync::Mutex<()>,
}

impl StartAdapters {
    /// Opens the folder, empty, to hold so many bytes at most.
    ///
    /// # Errors
    /// The old folder cannot be removed, or the new one cannot be made.
    pub fn open(staging: &Path, limit: u64) -> io::Result<Self> {
        let root = staging.join("initials");
        match std::fs::remove_dir_all(&root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&root)?;
        Ok(Self { root, limit, receiving: tokio::sync::Mutex::default() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.hex())
    }

    /// The header of an upload, which comes first.
    ///
    /// # Errors
    /// The first message is no header, nothing comes for a minute, or the stream breaks off.
    pub async fn header<S>(messages: &mut S) -> Result<InitialHeader, UploadedAdapterError>
    where
        S: Stream<Item = Result<InitialMessage, Status>> + Unpin,
    {
        match next(messages).await? {
            Some(InitialMessage { part: Some(AdapterPart::Header(header)) }) => Ok(header),
            _ => Err(UploadedAdapterError::Protocol("the first message must be the header")),
        }
    }

    /// Takes an adapter in: size, bytes, hash, content; only then it can be named. The same one
    /// twice is there once.
    ///
    /// # Errors
    /// The bytes are not those announced, the adapter does not fit the base, or the folder is full.
    /// The stream breaks off or stalls for a minute, or the disk refuses.
    pub async fn receive<S>(
        &self,
        header: &InitialHeader,
        base: v1::BaseModel,
        messages: &mut S,
    ) -> Result<v1::InitialAdapter, UploadedAdapterError>
    where
        S: Stream<Item = Result<InitialMessage, Status>> + Unpin,
    {
        let digest: Digest = header.digest.parse()?;
        let _receiving = self.receiving.lock().await;
        let held = self.held().map_err(file_error("list", &self.root))?;
        if held.saturating_add(header.total_bytes) > self.limit {
            return Err(UploadedAdapterError::Full { held, limit: self.limit });
        }
        let part = self.path(&digest).with_extension("part");
        let taken = self.store(&part, digest, header.total_bytes, messages).await;
        let checked = match taken {
            Ok(()) => check(&part, base).await,
            Err(error) => Err(error),
        };
        let named = match checked {
            Ok(message) => {
                let path = self.path(&digest);
                tokio::fs::rename(&part, &path).await.map_err(file_error("name", &path)).map(|()| message)
            }
            Err(error) => Err(error),
        };
        if named.is_err() {
            // It may not have come so far.
            let _ = tokio::fs::remove_file(&part).await;
        }
        named
    }

    /// Writes what comes and sees that it is what was announced.
    async fn store<S>(
        &self,
        part: &Path,
        digest: Digest,
        total: u64,
        messages: &mut S,
    ) -> Result<(), UploadedAdapterError>
    where
        S: Stream<Item = Result<InitialMessage, Status>> + Unpin,
    {
        let failed = |action| file_error(action, part);
        let mut file = tokio::fs::File::create(part).await.map_err(failed("make"))?;
        let mut hasher = Hasher::default();
        let mut stored = 0;
        while let Some(message) = next(messages).await? {
            let Some(AdapterPart::Data(data)) = message.part else {
                return Err(UploadedAdapterError::Protocol("a second header came"));
            };
            if data.len() > MESSAGE_BYTES {
                return Err(UploadedAdapterError::Protocol("a piece is larger than 1 MiB"));
            }
            stored += data.len() as u64;
            if stored > total {
                return Err(UploadedAdapterError::Size { got: stored, total });
            }
            hasher.update(&data);
            file.write_all(&data).await.map_err(failed("append to"))?;
        }
        if stored < total {
            return Err(UploadedAdapterError::Size { got: stored, total });
        }
        file.sync_all().await.map_err(failed("flush"))?;
        match hasher.digest() {
            got if got == digest => Ok(()),
            got => Err(UploadedAdapterError::Hash { expected: digest, got }),
        }
    }

    /// The file of an adapter that was uploaded, and what a run on this base may know of it.
    ///
    /// # Errors
    /// The adapter was not uploaded, its file cannot be read, or it does not fit the base.
    pub async fn find(
        &self,
        digest: &Digest,
        base: v1::BaseModel,
    ) -> Result<(PathBuf, v1::InitialAdapter), UploadedAdapterError> {
        let path = self.path(digest);
        match tokio::fs::try_exists(&path).await.map_err(file_error("look for", &path))? {
            true => Ok((path.clone(), check(&path, base).await?)),
            false => Err(UploadedAdapterError::Missing(*digest)),
        }
    }

    /// Removes what no run has named for an hour.
    pub async fn prune(&self) {
        let _receiving = self.receiving.lock().await;
        for file in std::fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let age = file.metadata().and_then(|about| about.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > KEEP)
                && let Err(error) = std::fs::remove_file(file.path())
            {
                tracing::warn!(path = %file.path().display(), %error, "an adapter that no run named stays for now");
            }
        }
    }

    fn held(&self) -> io::Result<u64> {
        let files = std::fs::read_dir(&self.root)?.flatten();
        Ok(files.map(|file| file.metadata().map_or(0, |about| about.len())).sum())
    }
}

async fn next<S>(messages: &mut S) -> Result<Option<InitialMessage>, UploadedAdapterError>
where
    S: Stream<Item = Result<InitialMessage, Status>> + Unpin,
{
    let message =
        tokio::time::timeout(MESSAGE_TIMEOUT, messages.next()).await.map_err(|_| UploadedAdapterError::Slow)?;
    message.transpose().map_err(|error| UploadedAdapterError::Stream(Box::new(error)))
}

async fn check(path: &Path, base: v1::BaseModel) -> Result<v1::InitialAdapter, UploadedAdapterError> {
    let path = path.to_owned();
    let checking = tokio::task::spawn_blocking(move || {
        let initial = StartAdapter::open(&path)?;
        initial.check(&base)?;
        Ok::<_, rondo_methods::StartAdapterError>(initial.message())
    });
    Ok(checking.await??)
}
