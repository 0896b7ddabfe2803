//! The staging folder: uploads that are not whole yet, and aggregates in the making.
//!
//! `uploads/<run>/<round>.<attempt>/<client>.<digest>` holds the bytes that came so far, so a transfer that broke off,
//! on either side, goes on where it stopped. A file goes when its update is settled, when its round closes, and at the
//! start of the coordinator when nobody waits for it any more.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rondo_proto::{ClientId, Digest, RunId};
use rondo_rounds::{ExpectedUpload, WorkKey};
use tokio::sync::{OwnedMutexGuard, watch};

use crate::driver::Driver;

/// One upload: who sends what for which attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UploadId {
    /// Who sends it.
    pub client: ClientId,
    /// What for.
    pub work: WorkKey,
    /// Digest of the whole file.
    pub digest: Digest,
}

/// The staging folder.
#[derive(Debug)]
pub struct Staging {
    root: PathBuf,
    open: Mutex<BTreeMap<UploadId, Arc<Slot>>>,
}

/// What is known of an upload besides its bytes.
#[derive(Debug, Default)]
struct Slot {
    /// Held by the one stream that writes; holds the wire bytes counted so far, `None` before the first stream.
    counted: Arc<tokio::sync::Mutex<Option<u64>>>,
    /// Counts the streams that came for it.
    streams: watch::Sender<u64>,
}

/// The right to write one upload.
pub struct Turn {
    number: u64,
    streams: watch::Receiver<u64>,
    counted: OwnedMutexGuard<Option<u64>>,
}

impl Turn {
    /// Returns once a newer stream of the same upload waits: its sender has given this one up.
    pub async fn superseded(&self) {
        let mut streams = self.streams.clone();
        // The upload is settled and forgotten when the sender is gone: then nothing is left to write either.
        let _ = streams.wait_for(|latest| *latest > self.number).await;
    }

    /// Adds gRPC message bytes, framing included.
    pub fn count(&mut self, bytes: u64) {
        *self.counted = Some(self.counted() + bytes);
    }

    /// Message bytes of all streams of this upload so far.
    pub fn counted(&self) -> u64 {
        self.counted.unwrap_or(0)
    }
}

impl Staging {
    /// Opens the folder, makes it when there is none, and removes half-made aggregates.
    pub fn open(root: &Path) -> io::Result<Self> {
        match std::fs::remove_dir_all(root.join("aggregates")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(root.join("uploads"))?;
        Ok(Self { root: root.to_owned(), open: Mutex::default() })
    }

    /// Where an aggregation works.
    pub fn aggregate_folder(&self, work: &WorkKey) -> PathBuf {
        self.root.join("aggregates").join(format!("{}.{}.{}", work.run, work.round, work.attempt))
    }

    /// Where the bytes of an upload are gathered.
    pub fn path(&self, id: &UploadId) -> PathBuf {
        let WorkKey { run, round, attempt } = &id.work;
        let folder = self.uploads().join(run.as_str()).join(format!("{round}.{attempt}"));
        folder.join(format!("{}.{}", id.client, id.digest.hex()))
    }

    fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// Bytes gathered so far.
    pub async fn stored(&self, id: &UploadId) -> io::Result<u64> {
        match tokio::fs::metadata(self.path(id)).await {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Takes the upload for one stream; a stream that has it is told to let go.
    pub async fn take(&self, id: &UploadId) -> io::Result<Turn> {
        let slot = Arc::clone(self.slots().entry(id.clone()).or_default());
        let mut number = 0;
        slot.streams.send_modify(|latest| {
            *latest += 1;
            number = *latest;
        });
        let mut counted = Arc::clone(&slot.counted).lock_owned().await;
        if counted.is_none() {
            // Counted by an earlier life of this process: what is stored came once at least.
            *counted = Some(self.stored(id).await?);
        }
        Ok(Turn { number, streams: slot.streams.subscribe(), counted })
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<UploadId, Arc<Slot>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all unfinished uploads together.
    pub fn bytes(&self) -> io::Result<u64> {
        self.list().map(|uploads| uploads.into_iter().map(|(_, bytes)| bytes).sum())
    }

    fn list(&self) -> io::Result<Vec<(UploadId, u64)>> {
        let mut all = Vec::new();
        for run in std::fs::read_dir(self.uploads())?.flatten() {
            for attempt in std::fs::read_dir(run.path())?.flatten() {
                for file in std::fs::read_dir(attempt.path())?.flatten() {
                    let names = [&run, &attempt, &file].map(|entry| entry.file_name().to_string_lossy().into_owned());
                    if let Some(id) = parse(&names) {
                        all.push((id, file.metadata().map_or(0, |m| m.len())));
                    }
                }
            }
        }
        Ok(all)
    }

    /// Forgets an upload that is settled or worthless.
    pub async fn remove(&self, id: &UploadId) {
        self.slots().remove(id);
        let path = self.path(id);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a staged upload stays until the next sweep");
            }
            _ => {}
        }
        // The folders go with their last file; one that still has files stays.
        for folder in path.ancestors().skip(1).take(2) {
            if tokio::fs::remove_dir(folder).await.is_err() {
                break;
            }
        }
    }

    /// Removes every upload that the engine does not wait for.
    pub async fn sweep(&self, driver: &Driver) {
        let uploads = match self.list() {
            Ok(uploads) => uploads,
            Err(error) => return tracing::warn!(%error, "cannot list staged uploads"),
        };
        for (id, bytes) in uploads {
            let asked = id.clone();
            let expected = driver.view(move |e| e.expected_upload(&asked.client, &asked.work, &asked.digest)).await;
            // Once the driver has stopped, the next start sweeps.
            let Ok(expected) = expected else { return };
            if !matches!(expected, Ok(ExpectedUpload::Wanted { .. })) {
                tracing::info!(
                    run = %id.work.run, round = id.work.round, attempt = id.work.attempt, client = %id.client, bytes,
                    "a staged upload is not wanted any more and is removed"
                );
                self.remove(&id).await;
            }
        }
    }
}

fn parse([run, attempt, file]: &[String; 3]) -> Option<UploadId> {
    let (round, attempt) = attempt.split_once('.')?;
    let (client, hex) = file.split_once('.')?;
    Some(UploadId {
        client: ClientId::new(client).ok()?,
        work: WorkKey {
            run: RunId::new(run.as_str()).ok()?,
            round: round.parse().ok()?,
            attempt: attempt.parse().ok()?,
        },
        digest: format!("blake3:{hex}").parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id() -> UploadId {
        UploadId {
            client: ClientId::new("movies").unwrap(),
            work: WorkKey { run: RunId::new("sentiment-1a2b").unwrap(), round: 3, attempt: 2 },
            digest: Digest::of(b"update"),
        }
    }

    fn keep(staging: &Staging, bytes: &[u8]) {
        let path = staging.path(&id());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[tokio::test]
    async fn a_partial_upload_outlives_the_process_and_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        keep(&Staging::open(dir.path()).unwrap(), b"half");
        let staging = Staging::open(dir.path()).unwrap();
        assert_eq!(staging.list().unwrap(), [(id(), 4)]);
        assert_eq!((staging.stored(&id()).await.unwrap(), staging.bytes().unwrap()), (4, 4));
        let mut turn = staging.take(&id()).await.unwrap();
        turn.count(10);
        assert_eq!(turn.counted(), 14);
        drop(turn);
        assert_eq!(staging.take(&id()).await.unwrap().counted(), 14);
        staging.remove(&id()).await;
        assert_eq!((staging.stored(&id()).await.unwrap(), staging.list().unwrap()), (0, vec![]));
        assert_eq!(std::fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_newer_stream_takes_the_upload_over() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Arc::new(Staging::open(dir.path()).unwrap());
        let first = staging.take(&id()).await.unwrap();
        tokio::time::timeout(Duration::from_millis(20), first.superseded()).await.unwrap_err();
        let second = tokio::spawn({
            let staging = Arc::clone(&staging);
            async move { staging.take(&id()).await.unwrap() }
        });
        tokio::time::timeout(Duration::from_secs(5), first.superseded()).await.unwrap();
        drop(first);
        let second = second.await.unwrap();
        tokio::time::timeout(Duration::from_millis(20), second.superseded()).await.unwrap_err();
    }
}
