//! How an update comes into the coordinator: size, bytes, hash, validation, blob, engine. Only then
//! it is "accepted".

mod append;
pub mod error;
pub mod staging;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rondo_methods::{Instance, Job, Kind, UpdateFacts, UpdateRefusal};
use rondo_proto::v1::{self, UploadHeader, UploadMessage, upload_message::Part as UploadPart};
use rondo_proto::{ClientId, Digest};
use rondo_rounds::{Clipped, ExpectedUpload, Input, Reply, RoundKind, StoredUpdate, UploadOutcome, WorkKey};
use rondo_wire::transfer::wire_bytes;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::blob_gc::drop_unreferenced;
use crate::driver::{Driver, DriverError};
use crate::store::blobs::Blobs;
use append::append_messages;
use error::{UploadError, file_error};
use staging::{Staging, UploadId, UploadLease};

/// What a safetensors file may add to its tensors: names, shapes and offsets as JSON.
const HEADER_BYTES: u64 = 64 << 10;
const HEADER_BYTES_PER_TENSOR: u64 = 512;

/// Receives updates.
#[derive(Clone)]
pub struct Uploads {
    driver: Driver,
    blobs: Arc<Blobs>,
    staging: Arc<Staging>,
}

/// The key of an upload, typed.
///
/// # Errors
/// The run's id or the digest is not valid.
pub fn upload_id(client: &ClientId, key: &v1::UploadKey) -> Result<UploadId, UploadError> {
    Ok(UploadId {
        client: client.clone(),
        work: WorkKey { run: key.run.parse()?, round: key.round, attempt: key.attempt },
        digest: key.digest.parse()?,
    })
}

/// The update that the engine waits for, and what it must be.
struct Wanted {
    kind: RoundKind,
    rank: u32,
    layout_bytes: u64,
    max_norm: Option<f64>,
    clipped: Option<Box<Clipped>>,
    job: Job,
}

enum Expected {
    Wanted(Box<Wanted>),
    Settled(UploadOutcome),
}

impl Uploads {
    /// Uploads into this engine and these folders.
    pub fn new(driver: Driver, blobs: Arc<Blobs>, staging: Arc<Staging>) -> Self {
        Self { driver, blobs, staging }
    }

    /// How many bytes of an upload are here.
    ///
    /// # Errors
    /// No such update is wanted, it was refused before, the staged file cannot be measured, or the
    /// driver has stopped.
    pub async fn status(&self, id: &UploadId) -> Result<v1::UploadStatusReply, UploadError> {
        match self.expected(id).await? {
            Expected::Settled(outcome) => {
                settled(outcome).map(|()| v1::UploadStatusReply { stored_bytes: 0, accepted: true })
            }
            Expected::Wanted(_) => {
                let stored = self.staging.stored(id).await.map_err(file_error("measure", &self.staging.path(id)))?;
                Ok(v1::UploadStatusReply { stored_bytes: stored, accepted: false })
            }
        }
    }

    async fn expected(&self, id: &UploadId) -> Result<Expected, UploadError> {
        let UploadId { client, work, digest } = id.clone();
        let expected = self.driver.view(move |engine| {
            let expected = engine.expected_upload(&client, &work, &digest)?;
            Ok::<_, rondo_rounds::Rejection>((expected, engine.job(&work.run).cloned()))
        });
        match expected.await?.map_err(DriverError::from)? {
            (ExpectedUpload::Decided(outcome), _) => Ok(Expected::Settled(outcome)),
            (ExpectedUpload::Wanted { kind, rank, layout_bytes, max_norm, clipped }, Some(job)) => {
                Ok(Expected::Wanted(Box::new(Wanted { kind, rank, layout_bytes, max_norm, clipped, job })))
            }
            (ExpectedUpload::Wanted { .. }, None) => Err(UploadError::Refused("the run has ended".to_owned())),
        }
    }

    /// Receives one stream of an upload. At its end all bytes are checked and durable, or those
    /// that came are kept for the next stream, or the upload is refused. The same upload twice
    /// counts once.
    ///
    /// # Errors
    /// No such update is wanted, or its header, size, bytes or content are refused. The stream
    /// breaks off or a newer one takes over, the staging folder is full, or the disk or the store
    /// refuses.
    pub async fn receive<S>(&self, client: ClientId, mut messages: S) -> Result<v1::UploadReply, UploadError>
    where
        S: Stream<Item = Result<UploadMessage, Status>> + Unpin,
    {
        let first = messages.next().await.ok_or(UploadError::Protocol("the stream is empty"))?;
        let first = first.map_err(|e| UploadError::Stream(Box::new(e)))?;
        let first_bytes = wire_bytes(&first);
        let Some(UploadPart::Header(header)) = first.part else {
            return Err(UploadError::Protocol("the first message must be the header"));
        };
        let key = header.key.as_ref().ok_or(UploadError::Protocol("the header has no key"))?;
        let id = upload_id(&client, key)?;
        let wanted = match self.expected(&id).await? {
            Expected::Wanted(wanted) => wanted,
            Expected::Settled(outcome) => return accepted(outcome, header.total_bytes),
        };
        self.check_size(&id, &header, &wanted).await?;
        let begun = Input::UploadBegun { client: client.clone(), work: id.work.clone(), digest: id.digest };
        if let Reply::Upload(outcome) = self.driver.step(begun).await? {
            return accepted(outcome, header.total_bytes);
        }

        let mut lease = self.staging.acquire(&id, header.total_bytes).await?;
        lease.count(first_bytes);
        let outcome = self.write(&id, &header, &wanted, &mut lease, &mut messages).await;
        self.staging.give_back(&id, lease).await;
        outcome
    }

    /// The part of [`receive`](Self::receive) that one stream does at a time.
    async fn write<S>(
        &self,
        id: &UploadId,
        header: &UploadHeader,
        wanted: &Wanted,
        lease: &mut UploadLease,
        messages: &mut S,
    ) -> Result<v1::UploadReply, UploadError>
    where
        S: Stream<Item = Result<UploadMessage, Status>> + Unpin,
    {
        // The stream before this one may have completed the upload.
        if let Expected::Settled(outcome) = self.expected(id).await? {
            return accepted(outcome, header.total_bytes);
        }
        let path = self.staging.path(id);
        let stored = append_messages(&path, header, lease, messages).await?;
        if stored < header.total_bytes {
            return Ok(v1::UploadReply { stored_bytes: stored, accepted: false });
        }
        tracing::debug!(run = %id.work.run, round = id.work.round, client = %id.client, bytes = stored, "upload whole");
        self.accept_update(id, &path, header, wanted, lease.counted()).await
    }

    /// Refuses by size before a byte is stored. A size that cannot be right will not be right next
    /// time either, so the client is dropped from the attempt.
    async fn check_size(&self, id: &UploadId, header: &UploadHeader, wanted: &Wanted) -> Result<(), UploadError> {
        let instance = Instance::in_round(id.work.round).with_rank(wanted.rank as usize).of_client(id.client.as_str());
        let tensors = wanted.job.upload_manifest(wanted.kind.into(), instance).len() as u64;
        let least = wanted.layout_bytes;
        let most = least + HEADER_BYTES + HEADER_BYTES_PER_TENSOR * tensors;
        let got = header.total_bytes;
        if !(least..=most).contains(&got) {
            let error = UploadError::Size { got, least, most };
            self.refuse(id, error.to_string()).await?;
            return Err(error);
        }
        Ok(())
    }

    /// Checks the hash and the content, stores the blob and tells the engine.
    async fn accept_update(
        &self,
        id: &UploadId,
        path: &Path,
        header: &UploadHeader,
        wanted: &Wanted,
        bytes_up: u64,
    ) -> Result<v1::UploadReply, UploadError> {
        let hashed = path.to_owned();
        let got = tokio::task::spawn_blocking(move || Digest::of_file(&hashed)).await?;
        let got = got.map_err(file_error("read", path))?;
        if got != id.digest {
            self.staging.remove_file(id).await;
            return Err(UploadError::Hash { expected: id.digest, got });
        }
        let facts = match self.check_content(wanted, id, path).await? {
            Ok(facts) => facts,
            Err(refusal) => {
                tracing::warn!(
                    run = %id.work.run, round = id.work.round, attempt = id.work.attempt, client = %id.client, %refusal,
                    "update failed validation"
                );
                self.refuse(id, refusal.to_string()).await?;
                self.staging.remove_file(id).await;
                return Err(refusal.into());
            }
        };
        let update = StoredUpdate {
            digest: id.digest,
            examples: header.examples,
            rank: header.rank,
            base_version: header.base_version,
            train_loss: header.train_loss,
            train_seconds: header.train_seconds,
            norm: facts.norm,
            bytes_up,
            before: header.before.clone(),
            min_group: header.min_group,
            metrics_withheld: header.metrics_withheld,
            privacy: header.privacy.clone(),
        };
        let stored = Input::UpdateStored { client: id.client.clone(), work: id.work.clone(), update };
        let putting = self.blobs.lock_for_put().await;
        self.blobs.put_file(&id.work.run, &id.digest, path).await?;
        let outcome = self.driver.step(stored).await;
        drop(putting);
        // A spare, or one that came too late, is dropped again.
        drop_unreferenced(&self.driver, &self.blobs, &id.work.run, vec![id.digest]).await;
        match outcome {
            // Not durable: the staged file is kept, the client sends nothing but asks again.
            Err(error @ (DriverError::Store(_) | DriverError::Stopped)) => Err(error.into()),
            Err(error) => {
                self.staging.remove_file(id).await;
                Err(error.into())
            }
            Ok(Reply::Upload(outcome)) => {
                self.staging.remove_file(id).await;
                accepted(outcome, header.total_bytes)
            }
            Ok(_) => Err(UploadError::Protocol("the engine gave no outcome")),
        }
    }

    async fn check_content(
        &self,
        wanted: &Wanted,
        id: &UploadId,
        path: &Path,
    ) -> Result<Result<UpdateFacts, UpdateRefusal>, UploadError> {
        let job = wanted.job.clone();
        let clipped = wanted.clipped.clone();
        let kind = wanted.kind.into();
        let rank = wanted.rank as usize;
        let max_norm = wanted.max_norm;
        let path = path.to_owned();
        let run = id.work.run.clone();
        let round = id.work.round;
        let blobs = Arc::clone(&self.blobs);
        let client = id.client.clone();
        let check = move || {
            let instance = Instance::in_round(round).with_rank(rank).of_client(client.as_str());
            let facts = match job.check_update(kind, instance, &path, max_norm) {
                Ok(facts) => facts,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let Some(Clipped { clip, start }) = clipped.as_deref() else { return Ok(Ok(facts)) };
            let file = |digest: &Digest| blobs.path(&run, digest);
            let job = start.start_adapter.map_or(Ok(job.clone()), |(digest, _)| job.starting_from(&file(&digest)))?;
            let frozen = start.frozen.as_ref().map(|frozen| file(&frozen.digest));
            let published: Vec<PathBuf> = start.published.iter().map(|(_, entry)| file(&entry.global)).collect();
            let start = match kind {
                Kind::WarmUp => job.warm_up_start(),
                Kind::Train => job.round_start(round, frozen.as_deref(), &published)?,
            };
            Ok(start.check_clipped(&path, *clip).map(|()| facts))
        };
        tokio::task::spawn_blocking(check).await?
    }

    async fn refuse(&self, id: &UploadId, reason: String) -> Result<(), UploadError> {
        let refused = Input::UpdateRefused { client: id.client.clone(), work: id.work.clone(), reason };
        self.driver.step(refused).await?;
        Ok(())
    }
}

fn settled(outcome: UploadOutcome) -> Result<(), UploadError> {
    match outcome {
        UploadOutcome::Accepted | UploadOutcome::Spare => Ok(()),
        UploadOutcome::Refused { reason } => Err(UploadError::Refused(reason)),
    }
}

fn accepted(outcome: UploadOutcome, stored_bytes: u64) -> Result<v1::UploadReply, UploadError> {
    settled(outcome).map(|()| v1::UploadReply { stored_bytes, accepted: true })
}
