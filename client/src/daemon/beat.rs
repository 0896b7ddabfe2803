//! Heartbeats: where the work in hand stands, told every few seconds until the coordinator says stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rondo_proto::v1;

use crate::api::Api;
use crate::worker::Task;
use rondo_trainer_api::work::Progress;

/// What the next heartbeat says. Shared by the work, which sets it, and the heartbeats, which tell it.
#[derive(Debug)]
pub(super) struct Beat {
    now: Mutex<(&'static str, Arc<Mutex<Progress>>)>,
    /// The result is being sent: a stop no longer spares any work, and may only mean that the result has arrived.
    sending: AtomicBool,
    /// Losses stay here: the run promises privacy.
    keeps_losses: AtomicBool,
}

impl Beat {
    pub(super) fn new(task: Task) -> Self {
        let state = match task {
            Task::WarmUp => "warm-up",
            Task::Train => "training",
            Task::Evaluate => "evaluating",
        };
        Self {
            now: Mutex::new((state, Arc::default())),
            sending: AtomicBool::new(false),
            keeps_losses: AtomicBool::new(false),
        }
    }

    /// The trainer has the work and reports its steps here.
    pub(super) fn follow(&self, progress: Arc<Mutex<Progress>>) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).1 = progress;
    }

    /// From here on no loss is told.
    pub(super) fn keep_losses(&self) {
        self.keeps_losses.store(true, Ordering::Relaxed);
    }

    /// The evaluation is over and its report is on its way.
    pub(super) fn reporting(&self) {
        self.sending.store(true, Ordering::Relaxed);
    }

    /// Training is over and the update is on its way.
    pub(super) fn uploading(&self) {
        self.reporting();
        self.now.lock().unwrap_or_else(PoisonError::into_inner).0 = "uploading";
    }

    fn request(&self, assignment: &v1::Assignment) -> v1::HeartbeatRequest {
        let (state, progress) = {
            let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
            (now.0, *now.1.lock().unwrap_or_else(PoisonError::into_inner))
        };
        v1::HeartbeatRequest {
            run: assignment.run.clone(),
            round: assignment.round,
            attempt: assignment.attempt,
            state: state.to_owned(),
            step: progress.step,
            steps: progress.steps,
            loss: if self.keeps_losses.load(Ordering::Relaxed) { 0.0 } else { progress.loss },
        }
    }
}

/// Tells heartbeats until one is answered with "stop"; answers the reason. Once the result is being sent, its own call
/// tells whether it is still wanted. A heartbeat that fails is only logged: the
/// work goes on while the coordinator is away.
pub(super) async fn until_stopped<A: Api>(
    api: Arc<A>,
    assignment: &v1::Assignment,
    beat: Arc<Beat>,
    every: Duration,
) -> String {
    loop {
        match api.heartbeat(beat.request(assignment)).await {
            Ok(reply) if reply.stop && !beat.sending.load(Ordering::Relaxed) => return reply.reason,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, run = assignment.run, "heartbeat"),
        }
        tokio::time::sleep(every).await;
    }
}
