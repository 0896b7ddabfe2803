//! Fetching tensors by digest, with resume, and checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rondo_proto::digest::Digest;
use rondo_proto::v1::DownloadRequest;
use rondo_wire::status::code_of;
use rondo_wire::transfer::Receiver;
use tonic::Status;

use crate::context::Administration;
use crate::error::CliError;

/// Attempts at one blob; each goes on where the last one stopped.
const ATTEMPTS: usize = 4;
/// Pause before the next attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// Fetches a run's blob into a folder, under its digest's name.
///
/// # Errors
/// `digest` is not valid, the folder cannot be written, or the bytes are not the blob's. The
/// coordinator refuses, or the transfer breaks off four times.
pub async fn fetch(client: &mut Administration, run: &str, digest: &str, dir: &Path) -> Result<PathBuf, CliError> {
    let digest: Digest = digest.parse()?;
    let path = dir.join(format!("{}.safetensors", digest.hex()));
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("fetching {prefix} {bar:30} {binary_bytes}/{binary_total_bytes}") {
        bar.set_style(style);
    }
    bar.set_prefix(digest.hex()[..12].to_owned());
    for attempt in 1.. {
        let mut receiver = Receiver::open(&path, digest)?;
        match receive(client, run, digest, &mut receiver, &bar).await {
            Ok(()) => {
                bar.finish_and_clear();
                return Ok(receiver.finish()?);
            }
            Err(Interrupted::Here(error)) => return Err(error),
            Err(Interrupted::There(status)) if attempt >= ATTEMPTS || !code_of(&status).retryable() => {
                return Err(status.into());
            }
            Err(Interrupted::There(_)) => tokio::time::sleep(PAUSE).await,
        }
    }
    Err(CliError::failed(format!("{digest} could not be fetched")))
}

enum Interrupted {
    Here(CliError),
    There(Status),
}

async fn receive(
    client: &mut Administration,
    run: &str,
    digest: Digest,
    receiver: &mut Receiver,
    bar: &ProgressBar,
) -> Result<(), Interrupted> {
    let request = DownloadRequest { run: run.to_owned(), digest: digest.to_string(), offset: receiver.offset() };
    let mut stream = client.fetch_blob(request).await.map_err(Interrupted::There)?.into_inner();
    while let Some(chunk) = stream.message().await.map_err(Interrupted::There)? {
        if chunk.total_bytes > 0 {
            bar.set_length(chunk.total_bytes);
        }
        receiver.absorb(&chunk).map_err(|error| Interrupted::Here(error.into()))?;
        bar.set_position(receiver.offset());
    }
    Ok(())
}
