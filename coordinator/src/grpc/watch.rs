//! A run as it changes: the summary now, again after every change, until the run ends.

use std::time::Duration;

use rondo_proto::RunId;
use rondo_proto::error::ErrorCode;
use rondo_proto::v1::RunUpdate;
use rondo_wire::status::status;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Replies, Shared, no_run};

/// Changes that follow one another faster are shown together.
const AT_MOST_EVERY: Duration = Duration::from_millis(150);

/// Returns once the coordinator goes down.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // The sender outlives every stream, or the whole process goes down.
    let _ = closing.wait_for(|closing| *closing).await;
}

impl Shared {
    /// The updates of a run.
    pub(crate) async fn watch(&self, run: RunId) -> Result<Replies<RunUpdate>, Status> {
        let driver = self.driver.clone();
        let mut version = driver.version();
        let mut closing = self.closing.clone();
        let asked = run.clone();
        driver.view(move |engine| engine.run_summary(&asked)).await?.ok_or_else(|| no_run(&run))?;

        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut shown = RunUpdate::default();
            let mut sequence = 0;
            loop {
                // Marked as seen before the state is read: a change meanwhile is looked at next
                // time.
                version.borrow_and_update();
                let asked = run.clone();
                let view = driver.view(move |engine| (engine.run_summary(&asked), engine.events(&asked, sequence)));
                let (summary, events) = match view.await {
                    Ok((Some(summary), events)) => (summary, events),
                    Ok((None, _)) => return,
                    Err(error) => {
                        let _ = sender.send(Err(error.into())).await;
                        return;
                    }
                };
                sequence = events.last().map_or(sequence, |event| event.sequence);
                let ended = summary.phase == "ended";
                let update = RunUpdate { summary: Some(summary), events };
                let is_news = update.summary != shown.summary || !update.events.is_empty();
                if is_news {
                    if sender.send(Ok(update.clone())).await.is_err() {
                        return;
                    }
                    shown = update;
                }
                if ended {
                    return;
                }
                tokio::select! {
                    () = sender.closed() => return,
                    () = closed(&mut closing) => {
                        let hint = Some("it comes back; watch again");
                        let closed = status(ErrorCode::Unavailable, "the coordinator is shutting down", hint);
                        let _ = sender.send(Err(closed)).await;
                        return;
                    }
                    changed = version.changed() => if changed.is_err() { return },
                }
                tokio::time::sleep(AT_MOST_EVERY).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}
