//! Heartbeats: every few seconds the client reports how far
//! its work is, until the coordinator says stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rondo_proto::v1;
use rondo_trainer_api::work::Progress;

use super::disclosure::Disclosure;
use crate::api::Api;
use crate::worker::Activity;

/// What the next heartbeat reports. The work sets it, and the heartbeats send it.
#[derive(Debug)]
pub(super) struct HeartbeatState {
    now: Mutex<(&'static str, Arc<Mutex<Progress>>)>,
    /// The result is being sent: a stop no longer saves any work,
    /// and may only mean that the result has arrived.
    sending: AtomicBool,
    /// Losses are not reported: the run has privacy.
    withholds_losses: AtomicBool,
    /// What client.toml lets out.
    disclosure: Disclosure,
}

impl HeartbeatState {
    pub(super) fn new(activity: Activity, disclosure: Disclosure) -> Self {
        let state = match activity {
            Activity::WarmUp => "warm-up",
            Activity::Train => "training",
            Activity::Evaluate => "evaluating",
        };
        Self {
            now: Mutex::new((state, Arc::default())),
            sending: AtomicBool::new(false),
            withholds_losses: AtomicBool::new(false),
            disclosure,
        }
    }

    /// The trainer has the work and reports its steps here.
    pub(super) fn follow(&self, progress: Arc<Mutex<Progress>>) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).1 = progress;
    }

    /// From now on no loss is reported.
    pub(super) fn withhold_losses(&self) {
        self.withholds_losses.store(true, Ordering::Relaxed);
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
        self.disclosure.heartbeat(assignment, state, progress, self.withholds_losses.load(Ordering::Relaxed))
    }
}

/// Sends heartbeats until one is answered with "stop", and returns the reason. Once the result is
/// being sent, a stop is ignored: the answer to the result says whether it is still wanted. A
/// heartbeat that fails is only logged: the work goes on while the coordinator is offline.
pub(super) async fn until_stopped<A: Api>(
    api: Arc<A>,
    assignment: &v1::Assignment,
    heartbeat: Arc<HeartbeatState>,
    every: Duration,
) -> String {
    loop {
        match api.heartbeat(heartbeat.request(assignment)).await {
            Ok(reply) if reply.stop && !heartbeat.sending.load(Ordering::Relaxed) => return reply.reason,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, run = assignment.run, "heartbeat"),
        }
        tokio::time::sleep(every).await;
    }
}
