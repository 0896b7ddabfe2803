//! The bytes of one stream, appended to the staged file.

use std::path::Path;

use rondo_proto::v1::{UploadHeader, UploadMessage, upload_message::Part as UploadPart};
use rondo_wire::transfer::wire_bytes;
use tokio::io::AsyncWriteExt;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::error::{UploadError, file_error};
use super::staging::UploadLease;

/// Appends data to the staged file until the stream ends; gives the bytes stored then. Flushed
/// message by message, so that what came stays whatever happens next.
pub(super) async fn append_messages<S>(
    path: &Path,
    header: &UploadHeader,
    lease: &mut UploadLease,
    messages: &mut S,
) -> Result<u64, UploadError>
where
    S: Stream<Item = Result<UploadMessage, Status>> + Unpin,
{
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await.map_err(file_error("make", folder))?;
    }
    let failed = |action| file_error(action, path);
    let open = tokio::fs::OpenOptions::new().create(true).append(true).open(path).await;
    let mut file = open.map_err(failed("open"))?;
    let mut stored = file.metadata().await.map_err(failed("measure"))?.len();
    if header.offset > stored {
        return Err(UploadError::Offset { got: header.offset, stored });
    }
    if header.offset < stored {
        // The sender starts further back: what it sends now counts.
        file.set_len(header.offset).await.map_err(failed("shorten"))?;
        stored = header.offset;
    }
    loop {
        let message = tokio::select! {
            biased;
            () = lease.superseded() => return Err(UploadError::Superseded),
            message = messages.next() => message,
        };
        let Some(message) = message else { break };
        let message = message.map_err(|e| UploadError::Stream(Box::new(e)))?;
        lease.count(wire_bytes(&message));
        let Some(UploadPart::Data(data)) = message.part else {
            return Err(UploadError::Protocol("a second header came"));
        };
        let got = stored + data.len() as u64;
        if got > header.total_bytes {
            return Err(UploadError::TooLong { got, total: header.total_bytes });
        }
        file.write_all(&data).await.map_err(failed("append to"))?;
        file.flush().await.map_err(failed("append to"))?;
        stored = got;
    }
    file.sync_data().await.map_err(failed("flush"))?;
    Ok(stored)
}
