//! The executor: carries out the engine's effects. Every order names its run, round and attempt and may come twice.

mod compute;
mod made;
mod releasing;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rondo_dp::{Ledger, LedgerError};
use rondo_methods::{Job, MethodError};
use rondo_rounds::state::phase::Phase;
use rondo_rounds::{AggregatePlan, Effect, Input, WorkKey};
use tokio::sync::{Semaphore, mpsc};

use crate::clock::Clock;
use crate::driver::{Driver, DriverError, Order};
use crate::garbage::drop_unneeded;
use crate::release::ReleaseError;
use crate::store::blobs::{BlobError, Blobs};
use crate::store::is_full;
use crate::upload::staging::Staging;
use compute::compute;
use made::Made;
use releasing::Paid;

/// Pauses before a result is handed in again, or a full disk tried again; the last one is kept to.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

fn pauses() -> impl Iterator<Item = Duration> {
    PAUSES.into_iter().chain(std::iter::repeat(PAUSES[PAUSES.len() - 1]))
}

/// Carries out effects.
#[derive(Clone)]
pub struct Executor {
    driver: Driver,
    blobs: Arc<Blobs>,
    staging: Arc<Staging>,
    /// What was released of private runs.
    ledger: Arc<Mutex<Ledger>>,
    clock: Arc<dyn Clock>,
    under_way: Arc<Mutex<BTreeSet<WorkKey>>>,
    /// One aggregation at a time: each uses what the machine has.
    aggregating: Arc<Semaphore>,
}

/// Why an aggregation came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Method(#[from] MethodError),
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("cannot {action} {path}: {source}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the aggregation stopped abruptly: {0}")]
    Abrupt(#[from] tokio::task::JoinError),
    #[error("the run has ended")]
    Ended,
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl Failure {
    /// A disk without space or a store that cannot be written: it may pass, so the updates are not thrown away for it.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Driver(DriverError::Store(_))) || is_full(self)
    }
}

impl Executor {
    /// An executor that reports to this driver.
    pub fn new(
        driver: Driver,
        blobs: Arc<Blobs>,
        staging: Arc<Staging>,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (aggregating, ledger) = (Arc::new(Semaphore::new(1)), Arc::new(Mutex::new(ledger)));
        Self { driver, blobs, staging, ledger, clock, under_way: Arc::default(), aggregating }
    }

    /// Carries out orders until the driver has ended.
    pub async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Effect(Effect::Aggregate(plan)) => self.start(*plan),
                Order::Effect(Effect::DropBlobs { run, digests }) => {
                    drop_unneeded(&self.driver, &self.blobs, &run, digests).await
                }
                Order::Effect(Effect::Announce(event)) => {
                    let client = (!event.client.is_empty()).then_some(event.client.as_str());
                    tracing::info!(run = event.run, round = event.round, client, "{}", event.text);
                }
                Order::Sweep => self.staging.sweep(&self.driver).await,
            }
        }
    }

    fn start(&self, plan: AggregatePlan) {
        let is_new = self.under_way().insert(plan.work.clone());
        if !is_new {
            return;
        }
        let executor = self.clone();
        tokio::spawn(async move {
            let work = plan.work.clone();
            executor.aggregate(plan).await;
            executor.under_way().remove(&work);
        });
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, BTreeSet<WorkKey>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn aggregate(&self, plan: AggregatePlan) {
        let work = plan.work.clone();
        let WorkKey { run, round, attempt } = &work;
        tracing::info!(%run, round, attempt, updates = plan.updates.len(), "aggregating");
        let folder = self.staging.aggregate_folder(&work);
        let (mut pauses, mut paid) = (pauses(), Paid::default());
        let outcome = loop {
            let outcome = self.try_aggregate(plan.clone(), &folder, &mut paid).await;
            // What a failed try has written takes space itself.
            self.clear(&folder).await;
            match (outcome, pauses.next()) {
                (Err(failure), Some(pause)) if failure.may_pass() => {
                    tracing::error!(
                        %run, round, attempt, error = %failure, seconds = pause.as_secs_f64(),
                        "no space for an aggregation; free some, it is tried again"
                    );
                    tokio::time::sleep(pause).await;
                }
                (outcome, _) => break outcome,
            }
        };
        let input = match outcome {
            Ok(()) | Err(Failure::Ended | Failure::Driver(DriverError::Stopped)) => return,
            Err(failure) => {
                tracing::error!(%run, round, attempt, error = %failure, "aggregation failed");
                Input::AggregateFailed { work: work.clone(), reason: failure.to_string() }
            }
        };
        let mut pauses = self::pauses();
        while let Err(error) = self.driver.step(input.clone()).await {
            match (error, pauses.next()) {
                // Without it the run would stand still.
                (DriverError::Store(error), Some(pause)) => {
                    tracing::warn!(%run, error, "cannot record a failed aggregation, trying again");
                    tokio::time::sleep(pause).await;
                }
                (error, _) => {
                    tracing::warn!(%run, round, attempt, %error, "a failed aggregation was not wanted any more");
                    return;
                }
            }
        }
    }

    /// The job of a run that waits for this aggregation; an error when it has been cancelled or gone on meanwhile.
    async fn wanted(&self, work: &WorkKey) -> Result<Job, Failure> {
        let work = work.clone();
        let view = move |engine: &rondo_rounds::Engine| {
            let live = &engine.state().runs.get(&work.run)?.live;
            let is_open = matches!(live.phase, Phase::Aggregating(_))
                && (live.open.round, live.open.attempt) == (work.round, work.attempt);
            is_open.then(|| engine.job(&work.run).cloned())?
        };
        self.driver.view(view).await?.ok_or(Failure::Ended)
    }

    async fn try_aggregate(&self, plan: AggregatePlan, folder: &Path, paid: &mut Paid) -> Result<(), Failure> {
        // The semaphore is never closed.
        let _turn = self.aggregating.acquire().await.map_err(|_| Failure::Ended)?;
        let work = plan.work.clone();
        let job = self.wanted(&work).await?;
        self.clear(folder).await;
        tokio::fs::create_dir_all(folder).await.map_err(|source| Failure::File {
            action: "make",
            path: folder.to_owned(),
            source,
        })?;
        self.release(&job, &plan, paid).await?;
        let (blobs, out_dir, released) = (Arc::clone(&self.blobs), folder.to_owned(), paid.released.clone());
        let next_clip = paid.released.as_ref().and_then(|released| released.next_clip);
        let ledger_head = paid.entered.clone().unwrap_or_default();
        let output = tokio::task::spawn_blocking(move || compute(&job, &plan, &blobs, &out_dir, released)).await??;
        let made = Made { next_clip, ledger_head, ..Made::of(output).await? };
        let mut pauses = pauses();
        loop {
            let failure = match self.hand_in(&work, &made).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.may_pass() => failure,
                Err(failure) => return Err(failure),
            };
            tracing::warn!(run = %work.run, error = %failure, "cannot store an aggregate, trying again");
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            self.wanted(&work).await?;
        }
    }

    /// Stores an aggregate and tells the engine. Blobs may be dropped again between one try and the next: on a full
    /// disk that is what makes space.
    async fn hand_in(&self, work: &WorkKey, made: &Made) -> Result<(), Failure> {
        let run = &work.run;
        let Made { global, frozen, server, .. } = made;
        let input = Input::Aggregated {
            work: work.clone(),
            global: global.digest,
            global_bytes: global.bytes,
            frozen: frozen.as_ref().map(|file| file.digest),
            frozen_bytes: frozen.as_ref().map_or(0, |file| file.bytes),
            server: server.as_ref().map(|file| file.digest),
            error: made.error,
            next_clip: made.next_clip,
            ledger_head: made.ledger_head.clone(),
            notes: made.notes.clone(),
        };
        let files = || std::iter::once(global).chain(frozen).chain(server);
        let putting = self.blobs.putting().await;
        for file in files() {
            self.blobs.put_file(run, &file.digest, &file.path).await?;
        }
        let reported = self.driver.step(input).await;
        drop(putting);
        match reported {
            Ok(_) => Ok(()),
            Err(DriverError::Rejected(rejection)) => {
                tracing::info!(%run, %rejection, "an aggregate came too late and is dropped");
                let digests = files().map(|file| file.digest).collect();
                drop_unneeded(&self.driver, &self.blobs, run, digests).await;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn clear(&self, folder: &Path) {
        match tokio::fs::remove_dir_all(folder).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(folder = %folder.display(), %error, "a working folder stays until the next start");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
