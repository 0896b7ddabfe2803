//! The staging folder: uploads that are not whole yet, and aggregates in the making.
//!
//! `uploads/<run>/<round>.<attempt>/<client>.<digest>` holds the bytes that came so far, so a
//! transfer that broke off, on either side, goes on where it stopped. A file is removed when its
//! update is accepted or refused, when its round closes, and at the start of the coordinator when
//! the engine does not wait for it any more. A client has one file for an attempt: one with another
//! digest replaces it. The size that an upload announces is reserved before its first byte is
//! written, so the folder never holds more than its limit.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rondo_proto::{ClientId, Digest, RunId};
use rondo_rounds::{ExpectedUpload, WorkKey};
use tokio::sync::{OwnedMutexGuard, watch};

use super::error::{UploadError, file_error};
use crate::driver::Driver;

/// The number of a stream, the numbers of later ones, and the lock that it writes under.
type Announced = (u64, watch::Receiver<u64>, Arc<tokio::sync::Mutex<Option<u64>>>);

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

impl UploadId {
    fn key(&self) -> SlotKey {
        (self.client.clone(), self.work.clone())
    }
}

/// A client has one upload for an attempt.
type SlotKey = (ClientId, WorkKey);

/// The staging folder.
#[derive(Debug)]
pub struct Staging {
    root: PathBuf,
    limit: u64,
    open: Mutex<BTreeMap<SlotKey, Slot>>,
}

/// What is known of an upload besides its bytes.
#[derive(Debug, Default)]
struct Slot {
    /// Held by the one stream that writes; holds the wire bytes counted so far, `None` before the
    /// first stream.
    counted: Arc<tokio::sync::Mutex<Option<u64>>>,
    /// Counts the streams that came for it.
    streams: watch::Sender<u64>,
    /// Bytes of the folder that are its own: announced by a stream, or stored when no stream
    /// writes.
    reserved: u64,
}

/// The right to write one upload, held by one stream at a time.
pub struct UploadLease {
    number: u64,
    streams: watch::Receiver<u64>,
    counted: OwnedMutexGuard<Option<u64>>,
}

impl UploadLease {
    /// Returns once a newer stream of the same client for the same attempt waits: its sender has
    /// given this one up.
    pub async fn superseded(&self) {
        let mut streams = self.streams.clone();
        // The upload is settled and forgotten when the sender is gone: then nothing is left to
        // write either.
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
    /// Opens a folder that may hold so many bytes, makes it when there is none, and removes
    /// half-made aggregates.
    ///
    /// # Errors
    /// The folder cannot be made or listed, or the half-made aggregates cannot be removed.
    pub fn open(root: &Path, limit: u64) -> io::Result<Self> {
        match std::fs::remove_dir_all(root.join("aggregates")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(root.join("uploads"))?;
        let staging = Self { root: root.to_owned(), limit, open: Mutex::default() };
        for (id, bytes) in staging.list()? {
            staging.slots().entry(id.key()).or_default().reserved += bytes;
        }
        Ok(staging)
    }

    /// Where an aggregation works.
    pub fn aggregate_folder(&self, work: &WorkKey) -> PathBuf {
        self.root.join("aggregates").join(format!("{}.{}.{}", work.run, work.round, work.attempt))
    }

    /// The file that collects the bytes of an upload.
    pub fn path(&self, id: &UploadId) -> PathBuf {
        let WorkKey { run, round, attempt } = &id.work;
        let folder = self.uploads().join(run.as_str()).join(format!("{round}.{attempt}"));
        folder.join(format!("{}.{}", id.client, id.digest.hex()))
    }

    fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// Bytes stored so far.
    ///
    /// # Errors
    /// The file is there, and its metadata cannot be read.
    pub async fn stored(&self, id: &UploadId) -> io::Result<u64> {
        match tokio::fs::metadata(self.path(id)).await {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Gives the upload to one stream of `total` bytes. A stream that has it is asked to stop, and
    /// what was stored with another digest is removed.
    ///
    /// # Errors
    /// The upload would exceed the folder's limit, or the stored file cannot be measured.
    pub async fn acquire(&self, id: &UploadId, total: u64) -> Result<UploadLease, UploadError> {
        let (number, streams, counted) = self.announce(id, total)?;
        let mut counted = counted.lock_owned().await;
        self.remove_others(id).await;
        if counted.is_none() {
            // Counted by an earlier life of this process: what is stored came once at least.
            *counted = Some(self.stored(id).await.map_err(file_error("measure", &self.path(id)))?);
        }
        Ok(UploadLease { number, streams, counted })
    }

    /// Reserves the bytes of a stream, all under one lock: two streams never share what is left.
    fn announce(&self, id: &UploadId, total: u64) -> Result<Announced, UploadError> {
        let mut slots = self.slots();
        let key = id.key();
        let held = slots.iter().filter(|(other, _)| **other != key).map(|(_, slot)| slot.reserved).sum::<u64>();
        if held.saturating_add(total) > self.limit {
            return Err(UploadError::StagingFull { held, limit: self.limit });
        }
        let slot = slots.entry(key).or_default();
        slot.reserved = total;
        let mut number = 0;
        slot.streams.send_modify(|latest| {
            *latest += 1;
            number = *latest;
        });
        Ok((number, slot.streams.subscribe(), Arc::clone(&slot.counted)))
    }

    /// Gives back what a stream that has ended reserved and did not use.
    pub async fn give_back(&self, id: &UploadId, lease: UploadLease) {
        let stored = self.stored(id).await.unwrap_or(0);
        if let Some(slot) = self.slots().get_mut(&id.key())
            && *slot.streams.borrow() == lease.number
        {
            slot.reserved = stored;
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<SlotKey, Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what the client stored for the same attempt with other digests.
    async fn remove_others(&self, id: &UploadId) {
        let others = self.list().unwrap_or_default().into_iter();
        let others = others.map(|(other, _)| other).filter(|other| other.key() == id.key() && other != id);
        for other in others {
            self.remove_file(&other).await;
        }
    }

    /// Bytes reserved for all unfinished uploads together.
    pub fn reserved(&self) -> u64 {
        self.slots().values().map(|slot| slot.reserved).sum()
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

    /// Removes the bytes of an upload that is settled or worthless. Those who wait to write it are
    /// not disturbed.
    pub async fn remove_file(&self, id: &UploadId) {
        let path = self.path(id);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a staged upload stays until the next clean-up");
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
    pub async fn collect_garbage(&self, driver: &Driver) {
        let uploads = match self.list() {
            Ok(uploads) => uploads,
            Err(error) => return tracing::warn!(%error, "cannot list staged uploads"),
        };
        for (id, bytes) in uploads {
            let asked = id.clone();
            let expected = driver.view(move |e| e.expected_upload(&asked.client, &asked.work, &asked.digest)).await;
            // Once the driver has stopped, the next start cleans up.
            let Ok(expected) = expected else { return };
            if !matches!(expected, Ok(ExpectedUpload::Wanted { .. })) {
                tracing::info!(
                    run = %id.work.run, round = id.work.round, attempt = id.work.attempt, client = %id.client, bytes,
                    "a staged upload is not wanted any more and is removed"
                );
                self.remove_file(&id).await;
                self.slots().remove(&id.key());
            }
        }
        // What is settled and has no file is of no more use either, unless a stream is about to
        // end.
        self.slots().retain(|_, slot| slot.reserved > 0 || Arc::strong_count(&slot.counted) > 1);
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
#[path = "staging/tests.rs"]
mod tests;
