//! Bringing the adapter that a run starts from: read from a PEFT folder,
//! checked against the registered base, uploaded.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rondo_methods::StartAdapter;
use rondo_methods::start_adapter::convert;
use rondo_proto::run_file::RunFile;
use rondo_proto::v1::{GetBaseRequest, InitialHeader, initial_message::Part};
use rondo_wire::status::code_of;
use rondo_wire::transfer;
use tonic::Status;

use crate::context::Administration;
use crate::error::CliError;

/// Attempts at one upload.
const ATTEMPTS: usize = 4;
/// Pause before the next attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// Uploads the adapter in a PEFT folder for a run; answers the digest by which the run names it.
/// What does not fit the run's base and task is refused before anything is sent.
///
/// # Errors
/// The adapter cannot be read or does not fit, or the temporary file cannot be written. The
/// coordinator refuses, or the upload breaks off four times.
pub async fn upload(admin: &mut Administration, run: &RunFile, dir: &Path) -> Result<String, CliError> {
    let base = admin.get_base(GetBaseRequest { name: run.base.model.clone() }).await?.into_inner();
    let folder = tempfile::tempdir().map_err(|error| CliError::failed(format!("no temporary folder: {error}")))?;
    let path = folder.path().join("initial.safetensors");
    let message = convert(dir, &base, &run.task, &path).map(|initial: StartAdapter| initial.message())?;
    let header = InitialHeader { base: base.name, digest: message.digest.clone(), total_bytes: message.bytes };
    let bar = ProgressBar::new(message.bytes);
    if let Ok(style) = ProgressStyle::with_template("uploading {prefix} {bar:30} {binary_bytes}/{binary_total_bytes}") {
        bar.set_style(style);
    }
    bar.set_prefix(dir.display().to_string());
    for attempt in 1.. {
        match send(admin, header.clone(), &path, &bar).await? {
            Ok(()) => break,
            Err(status) if attempt >= ATTEMPTS || !code_of(&status).retryable() => return Err(status.into()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    bar.finish_and_clear();
    Ok(message.digest)
}

/// One attempt. The outer failure is one of this machine.
async fn send(
    admin: &mut Administration,
    header: InitialHeader,
    path: &Path,
    bar: &ProgressBar,
) -> Result<Result<(), Status>, CliError> {
    let messages = transfer::start_adapter_messages(header, path).map_err(|error| CliError::io(path, &error))?;
    bar.set_position(0);
    let counted = bar.clone();
    // A stream of messages cannot say that the file failed; it
    // ends short, and the coordinator says what came.
    let counting = messages.map_while(Result::ok).inspect(move |message| {
        if let Some(Part::Data(data)) = &message.part {
            counted.inc(data.len() as u64);
        }
    });
    Ok(admin.upload_initial(transfer::stream(counting)).await.map(|_| ()))
}
