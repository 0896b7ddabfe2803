//! A finished update on its way out: into the spool, into the ledger
//! where it has a cost, and up to the coordinator.

use std::path::Path;
use std::sync::Arc;

use rondo_methods::{Instance, Kind};
use rondo_proto::error::ErrorCode;
use rondo_proto::v1;
use rondo_trainer_api::work::{LocalUpdate, WorkError};
use tokio::task::spawn_blocking;

use super::accepted_run::AcceptedRun;
use super::failure::Failure;
use super::heartbeat::HeartbeatState;
use super::{Daemon, privacy_terms, transfer};
use crate::api::{Api, ApiError};
use crate::spool::{Charge, Entry, Facts, Key};
use crate::worker::Activity;

/// Whether an update that the coordinator refused can be dropped. One that has a cost and only came
/// too late for its attempt may serve the next.
pub(super) fn can_be_dropped(entry: &Entry, error: &ApiError) -> bool {
    error.is_final() && (!entry.facts.charge.is_some() || error.code == ErrorCode::InvalidArgument)
}

impl<A: Api> Daemon<A> {
    /// Checks what the trainer made and puts it into the spool.
    pub(super) async fn spool_update(
        &self,
        key: &Key,
        activity: Activity,
        accepted: &AcceptedRun,
        base_version: usize,
        update: LocalUpdate,
    ) -> Result<Entry, Failure> {
        let update = if accepted.run.privacy.is_some() { privacy_terms::tensors_only(update) } else { update };
        let LocalUpdate { tensors, examples, train_loss, seconds, before } = update;
        let kind = if activity == Activity::WarmUp { Kind::WarmUp } else { Kind::Train };
        let unfit = tensors.iter().find(|(_, tensor)| tensor.data.iter().any(|number| !number.is_finite()));
        if unfit.is_some() || !train_loss.is_finite() {
            let what = unfit.map_or("the training loss".to_owned(), |(name, _)| format!("tensor {name}"));
            return Err(WorkError::NotFinite { round: key.round, step: accepted.run.train.local_steps, what }.into());
        }
        let facts = Facts {
            examples,
            train_loss,
            train_seconds: seconds,
            rank: accepted.rank,
            base_version: u32::try_from(base_version).unwrap_or(u32::MAX),
            before,
            charge: if accepted.privacy.is_some() && privacy_terms::is_private(activity, accepted) {
                Charge::Due
            } else {
                Charge::None
            },
        };
        tracing::info!(%key, examples, train_loss, seconds, "trained");
        let facts = self.disclosure.facts(facts, accepted.run.task.kind);
        let spool = Arc::clone(&self.spool);
        let key = key.clone();
        let job = accepted.job.clone();
        let round = key.round;
        let rank = accepted.rank as usize;
        let client = self.client.clone();
        let write = move |path: &Path| {
            let instance = Instance::in_round(round).with_rank(rank).of_client(&client);
            job.write_update(kind, instance, &tensors, path)
        };
        Ok(spawn_blocking(move || spool.put(&key, &facts, &write)).await??)
    }

    /// The finished update under a key, when there is one.
    pub(super) async fn spooled(&self, key: &Key) -> Result<Option<Entry>, Failure> {
        let spool = Arc::clone(&self.spool);
        let key = key.clone();
        Ok(spawn_blocking(move || spool.find(&key)).await??)
    }

    pub(super) async fn is_spooled(&self, key: &Key) -> bool {
        self.spooled(key).await.is_ok_and(|entry| entry.is_some())
    }

    /// Uploads an entry; it stays in the spool, marked,
    /// until the coordinator turns to something else.
    pub(super) async fn deliver(&self, entry: Entry, heartbeat: &HeartbeatState) -> Result<(), Failure> {
        let entry = self.release(entry).await?;
        heartbeat.uploading();
        match transfer::upload(self.api.as_ref(), &self.retry, self.outgoing(), &entry).await {
            Ok(()) => Ok(self.spool.mark_accepted(&entry)?),
            Err(error) => {
                if can_be_dropped(&entry, &error) {
                    self.spool.remove(&entry.key)?;
                }
                Err(error.into())
            }
        }
    }

    /// An update of an earlier attempt at the same round, from the same state. To send it costs at
    /// most once; to make another would cost again.
    pub(super) async fn made_before(&self, key: &Key, published: usize) -> Result<Option<Entry>, Failure> {
        let spool = Arc::clone(&self.spool);
        let entries = spawn_blocking(move || spool.list()).await??;
        let version = u32::try_from(published).unwrap_or(u32::MAX);
        Ok(entries.into_iter().rfind(|entry| {
            (&entry.key.run, entry.key.round) == (&key.run, key.round)
                && entry.facts.base_version == version
                && entry.facts.charge.is_some()
        }))
    }

    /// Enters an update that has yet to be paid for into the ledger.
    /// Only what this returns may leave the machine.
    async fn release(&self, entry: Entry) -> Result<Entry, Failure> {
        if entry.facts.charge != Charge::Due {
            return Ok(entry);
        }
        let guard = self.guard.clone();
        let spool = Arc::clone(&self.spool);
        spawn_blocking(move || -> Result<Entry, Failure> {
            crash_point("spooled");
            let report = guard.release(&entry)?;
            crash_point("entered");
            let v1::PrivacyReport { epsilon, total_steps, .. } = report;
            tracing::info!(key = %entry.key, epsilon, total_steps, "release entered into the ledger");
            let paid = spool.mark_paid(entry, report)?;
            crash_point("paid");
            Ok(paid)
        })
        .await?
    }
}

/// A place where a test lets the process die as if by SIGKILL: where `RONDO_DIE_AT` names it, the
/// process ends on the spot, and nothing is cleaned up. Release builds have no such places.
fn crash_point(place: &str) {
    if cfg!(debug_assertions) && std::env::var_os("RONDO_DIE_AT").is_some_and(|at| at == place) {
        std::process::abort();
    }
}
