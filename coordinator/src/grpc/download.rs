//! Blobs on their way out: read from disk in chunks, a few ahead of the network, never whole.

use rondo_proto::error::ErrorCode;
use rondo_proto::v1::{Chunk, DownloadRequest};
use rondo_proto::{ClientId, Digest, RunId};
use rondo_rounds::Input;
use rondo_wire::status::status;
use rondo_wire::transfer::{chunks, wire_bytes};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Replies, Shared, invalid, run_id};
use crate::driver::Driver;

/// Chunks read ahead of the network.
const READ_AHEAD: usize = 2;

/// What is asked for, typed.
pub(crate) fn parse_request(request: &DownloadRequest) -> Result<(RunId, Digest, u64), Status> {
    Ok((run_id(&request.run)?, request.digest.parse().map_err(invalid)?, request.offset))
}

/// Tells the engine what a client received.
pub(crate) struct DeliveryCounter {
    /// The driver.
    pub driver: Driver,
    /// Who receives.
    pub client: ClientId,
}

impl Shared {
    /// The chunks of a blob from an offset. With a counter, the engine gets the number of bytes
    /// before the last chunk is sent, and also when the stream breaks off.
    pub(crate) async fn send_blob(
        &self,
        run: RunId,
        digest: Digest,
        offset: u64,
        count: Option<DeliveryCounter>,
    ) -> Result<Replies<Chunk>, Status> {
        let missing = || status(ErrorCode::NotFound, format!("run `{run}` has no blob {digest}"), None);
        let size = self.blobs.size(&run, &digest).await.map_err(|e| unreadable(&e))?.ok_or_else(missing)?;
        if offset > size {
            let message = format!("offset {offset} lies beyond the {size} bytes of {digest}");
            return Err(status(ErrorCode::OutOfRange, message, Some("start again from offset 0")));
        }
        let path = self.blobs.path(&run, &digest);
        let pieces = tokio::task::spawn_blocking(move || chunks(&path, offset)).await;
        let pieces = pieces.map_err(|e| unreadable(&e))?.map_err(|e| unreadable(&e))?;
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let mut left = size - offset;
        let mut closing = self.closing.clone();
        tokio::spawn(async move {
            let mut pieces = pieces;
            let mut sent = 0;
            let mut last = None;
            loop {
                // Reading goes to a thread for blocking work and comes back, so a slow client holds
                // no thread.
                let Ok((rest, piece)) = tokio::task::spawn_blocking(move || {
                    let piece = pieces.next();
                    (pieces, piece)
                })
                .await
                else {
                    break;
                };
                pieces = rest;
                let piece = match piece {
                    Some(piece) => piece.map_err(|e| unreadable(&e)),
                    None => break,
                };
                if let Ok(chunk) = &piece {
                    left = left.saturating_sub(chunk.data.len() as u64);
                    if left == 0 {
                        last = Some(piece);
                        break;
                    }
                }
                let bytes = piece.as_ref().map_or(0, wire_bytes);
                let delivered = tokio::select! {
                    delivered = sender.send(piece) => delivered.is_ok(),
                    _ = closing.wait_for(|closing| *closing) => false,
                };
                if !delivered {
                    break;
                }
                sent += bytes;
            }
            let tail = last.as_ref().and_then(|piece| piece.as_ref().ok()).map_or(0, wire_bytes);
            if let Some(DeliveryCounter { driver, client }) = count
                && sent + tail > 0
            {
                let delivered =
                    Input::Delivered { client: client.clone(), run: run.clone(), digest, bytes: sent + tail };
                if let Err(error) = driver.step(delivered).await {
                    tracing::debug!(%run, %client, %digest, %error, "delivered bytes were not counted");
                }
            }
            if let Some(last) = last {
                // The client may have gone away.
                let _ = sender.send(last).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Status {
    status(ErrorCode::Unavailable, error.to_string(), Some("look at the coordinator's log and its disk"))
}
