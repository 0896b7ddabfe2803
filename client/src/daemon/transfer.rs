//! Blobs in and updates out, both taken up again where they stopped.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rondo_proto::error::ErrorCode;
use rondo_proto::{Digest, v1};
use rondo_wire::transfer;
use tokio::task::spawn_blocking;
use tokio_stream::StreamExt;

use super::disclosure::Disclosure;
use super::failure::Failure;
use crate::api::{Api, ApiError, Retry, UploadMessages};
use crate::cache::Cache;
use crate::history::{History, Message, What};
use crate::spool::Entry;

/// How many blobs may come broken before the assignment is given up, and how many uploads may fail
/// for reasons that trying again does not usually fix.
const TRIES: u32 = 3;

fn locked(cache: &Mutex<Cache>) -> MutexGuard<'_, Cache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fetches a blob that is not in the cache, and checks its
/// digest. Breaks of the connection are waited out.
pub(super) async fn fetch<A: Api>(
    api: &A,
    retry: &Retry,
    cache: &Arc<Mutex<Cache>>,
    run: &str,
    digest: Digest,
) -> Result<PathBuf, Failure> {
    let shared = Arc::clone(cache);
    if let Some(path) = spawn_blocking(move || locked(&shared).find(&digest)).await? {
        return Ok(path);
    }
    let mut backoff = retry.backoff();
    let mut broken = 0;
    loop {
        let mut receiver = locked(cache).begin(digest)?;
        let offset = receiver.offset();
        let request = v1::DownloadRequest { run: run.to_owned(), digest: digest.to_string(), offset };
        let received = async {
            let mut chunks = api.download(request).await?;
            while let Some(chunk) = chunks.next().await {
                receiver.absorb(&chunk?).map_err(|error| locked(cache).explain(digest, error))?;
            }
            Ok::<_, Failure>(())
        };
        let outcome = match received.await {
            Ok(()) => spawn_blocking(move || receiver.finish())
                .await?
                .map_err(|error| Failure::from(locked(cache).explain(digest, error))),
            Err(failure) => Err(failure),
        };
        let failure = match outcome {
            Ok(path) => {
                tracing::debug!(run, %digest, from = offset, "blob fetched");
                return Ok(path);
            }
            Err(failure) => failure,
        };
        match &failure {
            Failure::Api(error) if error.is_passing() => {}
            // A part that the coordinator does not recognise,
            // or bytes that are not the blob's: start again.
            Failure::Api(ApiError { code: ErrorCode::OutOfRange | ErrorCode::DataLoss, .. })
            | Failure::Cache(crate::cache::CacheError::Received(_))
                if broken < TRIES =>
            {
                broken += 1;
            }
            _ => return Err(failure),
        }
        tracing::warn!(run, %digest, error = %failure, "download is tried again");
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Uploads an entry until the coordinator holds it, from whatever offset it has reached. Breaks of
/// the connection are waited out.
///
/// # Errors
/// The coordinator's refusal.
pub(super) async fn upload<A: Api>(
    api: &A,
    retry: &Retry,
    outgoing: Outgoing<'_>,
    entry: &Entry,
) -> Result<(), ApiError> {
    let mut backoff = retry.backoff();
    let mut failures = 0;
    loop {
        let error = match upload_once(api, outgoing, entry).await {
            Ok(true) => return Ok(()),
            Ok(false) => ApiError {
                call: "upload",
                code: ErrorCode::Internal,
                message: "the coordinator took the update only in part".to_owned(),
                hint: None,
            },
            Err(error) => error,
        };
        // Aborted means damage on the way or a newer stream: both
        // pass, unless it is the file here that is damaged.
        let passing = error.is_passing() && error.code != ErrorCode::Aborted;
        if error.is_final() || error.code == ErrorCode::Unauthenticated || (!passing && failures >= TRIES) {
            return Err(error);
        }
        failures += u32::from(!passing);
        tracing::warn!(key = %entry.key, %error, "upload is tried again");
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// What an upload needs beside its entry.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    /// Which facts may go with it.
    pub(super) disclosure: Disclosure,
    /// Has it before it leaves.
    pub(super) history: &'a History,
}

/// One attempt; true once the coordinator holds the update. The history has the update before its
/// first byte leaves, and that it was taken before this returns true.
pub(super) async fn upload_once<A: Api>(api: &A, outgoing: Outgoing<'_>, entry: &Entry) -> Result<bool, ApiError> {
    let fault = |message: String| ApiError { call: "upload", code: ErrorCode::Internal, message, hint: None };
    let sent = Message {
        run: entry.key.run.to_string(),
        round: entry.key.round,
        attempt: entry.key.attempt,
        what: What::Update,
        bytes: entry.bytes,
        digest: entry.digest.to_string(),
    };
    let key = v1::UploadKey {
        run: entry.key.run.to_string(),
        round: entry.key.round,
        attempt: entry.key.attempt,
        digest: entry.digest.to_string(),
    };
    let status = api.upload_status(key.clone()).await?;
    if status.accepted {
        outgoing.history.taken(&sent).map_err(|error| fault(error.to_string()))?;
        return Ok(true);
    }
    // What claims to be longer than the file is not the start of it.
    let offset = if status.stored_bytes > entry.bytes { 0 } else { status.stored_bytes };
    let header = outgoing.disclosure.upload_header(entry, key, offset);
    let unreadable = |error| fault(format!("the spooled update of {} cannot be read: {error}", entry.key));
    let messages = transfer::upload_messages(header, &entry.path).map_err(unreadable)?;
    outgoing.history.sending(&sent).map_err(|error| fault(error.to_string()))?;
    let key = entry.key.clone();
    let path = entry.path.clone();
    // A stream of messages cannot say that the file failed; it
    // ends short, and the coordinator keeps what came.
    let readable = transfer::stream(messages).map_while(move |message| {
        message.map_err(|error| tracing::error!(%key, path = %path.display(), %error, "spooled update")).ok()
    });
    let reply = api.upload(entry.bytes - offset, UploadMessages::new(readable)).await?;
    if reply.accepted {
        outgoing.history.taken(&sent).map_err(|error| fault(error.to_string()))?;
    }
    Ok(reply.accepted)
}
