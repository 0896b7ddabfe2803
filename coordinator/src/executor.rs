//! The executor: carries out the engine's effects. Every request names its run, round and attempt,
//! and may come twice.

mod aggregate_files;
mod compute;
mod error;
mod releaser;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rondo_dp::Ledger;
use rondo_methods::Job;
use rondo_rounds::state::phase::Phase;
use rondo_rounds::{AggregatePlan, Effect, Input, WorkKey};
use tokio::sync::{Semaphore, mpsc};

use crate::blob_gc::drop_unreferenced;
use crate::clock::Clock;
use crate::driver::{Driver, DriverError, DriverRequest};
use crate::store::blobs::Blobs;
use crate::upload::staging::Staging;
use aggregate_files::AggregateFiles;
use compute::compute;
use error::AggregationError;
use releaser::{ReleaseState, Releaser};

/// Pauses before a result is submitted again, or a full disk is tried again. The last one repeats.
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
    /// Makes the releases of private runs.
    releaser: Releaser,
    in_progress: Arc<Mutex<BTreeSet<WorkKey>>>,
    /// One aggregation at a time: each uses what the machine has.
    aggregating: Arc<Semaphore>,
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
        let ledger = Arc::new(Mutex::new(ledger));
        let releaser = Releaser { driver: driver.clone(), blobs: Arc::clone(&blobs), ledger, clock };
        let aggregating = Arc::new(Semaphore::new(1));
        Self { driver, blobs, staging, releaser, in_progress: Arc::default(), aggregating }
    }

    /// Carries out requests until the driver has ended.
    pub async fn run(self, mut requests: mpsc::UnboundedReceiver<DriverRequest>) {
        while let Some(request) = requests.recv().await {
            match request {
                DriverRequest::Effect(Effect::Aggregate(plan)) => self.start(*plan),
                DriverRequest::Effect(Effect::DropBlobs { run, digests }) => {
                    drop_unreferenced(&self.driver, &self.blobs, &run, digests).await
                }
                DriverRequest::Effect(Effect::Announce(event)) => {
                    let client = (!event.client.is_empty()).then_some(event.client.as_str());
                    tracing::info!(run = event.run, round = event.round, client, "{}", event.text);
                }
                DriverRequest::CollectGarbage => self.staging.collect_garbage(&self.driver).await,
            }
        }
    }

    fn start(&self, plan: AggregatePlan) {
        let is_new = self.in_progress().insert(plan.work.clone());
        if !is_new {
            return;
        }
        let executor = self.clone();
        tokio::spawn(async move {
            let work = plan.work.clone();
            executor.aggregate(plan).await;
            executor.in_progress().remove(&work);
        });
    }

    fn in_progress(&self) -> std::sync::MutexGuard<'_, BTreeSet<WorkKey>> {
        self.in_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn aggregate(&self, plan: AggregatePlan) {
        let work = plan.work.clone();
        let WorkKey { run, round, attempt } = &work;
        tracing::info!(%run, round, attempt, updates = plan.updates.len(), "aggregating");
        let folder = self.staging.aggregate_folder(&work);
        let mut pauses = pauses();
        let mut release = ReleaseState::default();
        let outcome = loop {
            let outcome = self.try_aggregate(plan.clone(), &folder, &mut release).await;
            // What a failed try has written takes space itself.
            self.clear(&folder).await;
            match (outcome, pauses.next()) {
                (Err(failure), Some(pause)) if failure.is_transient() => {
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
            Ok(()) | Err(AggregationError::Ended | AggregationError::Driver(DriverError::Stopped)) => return,
            Err(failure) => {
                tracing::error!(%run, round, attempt, error = %failure, "aggregation failed");
                Input::AggregateFailed { work: work.clone(), reason: failure.to_string() }
            }
        };
        let mut pauses = self::pauses();
        while let Err(error) = self.driver.step(input.clone()).await {
            match (error, pauses.next()) {
                // Without it the run would never go on.
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

    /// The job of a run that waits for this aggregation; an error when it has been cancelled or
    /// gone on meanwhile.
    async fn wanted(&self, work: &WorkKey) -> Result<Job, AggregationError> {
        let work = work.clone();
        let view = move |engine: &rondo_rounds::Engine| {
            let live = &engine.state().runs.get(&work.run)?.live;
            let is_open = matches!(live.phase, Phase::Aggregating(_))
                && (live.open.round, live.open.attempt) == (work.round, work.attempt);
            is_open.then(|| engine.job(&work.run).cloned())?
        };
        self.driver.view(view).await?.ok_or(AggregationError::Ended)
    }

    async fn try_aggregate(
        &self,
        plan: AggregatePlan,
        folder: &Path,
        release: &mut ReleaseState,
    ) -> Result<(), AggregationError> {
        // The semaphore is never closed.
        let _permit = self.aggregating.acquire().await.map_err(|_| AggregationError::Ended)?;
        let work = plan.work.clone();
        let job = self.wanted(&work).await?;
        self.clear(folder).await;
        tokio::fs::create_dir_all(folder).await.map_err(|source| AggregationError::File {
            action: "make",
            path: folder.to_owned(),
            source,
        })?;
        self.releaser.release(&job, &plan, release).await?;
        let blobs = Arc::clone(&self.blobs);
        let out_dir = folder.to_owned();
        let released = release.released.clone();
        let next_clip = released.as_ref().and_then(|released| released.next_clip);
        let ledger_head = release.entered.clone().unwrap_or_default();
        let output = tokio::task::spawn_blocking(move || compute(&job, &plan, &blobs, &out_dir, released)).await??;
        let files = AggregateFiles { next_clip, ledger_head, ..AggregateFiles::of(output).await? };
        let mut pauses = pauses();
        loop {
            let failure = match self.submit(&work, &files).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.is_transient() => failure,
                Err(failure) => return Err(failure),
            };
            tracing::warn!(run = %work.run, error = %failure, "cannot store an aggregate, trying again");
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            self.wanted(&work).await?;
        }
    }

    /// Stores an aggregate and reports it to the engine. Blobs may be dropped again between one try
    /// and the next: on a full disk that is what makes space.
    async fn submit(&self, work: &WorkKey, files: &AggregateFiles) -> Result<(), AggregationError> {
        let run = &work.run;
        let AggregateFiles { global, frozen, server, .. } = files;
        let input = Input::Aggregated {
            work: work.clone(),
            global: global.digest,
            global_bytes: global.bytes,
            frozen: frozen.as_ref().map(|file| file.digest),
            frozen_bytes: frozen.as_ref().map_or(0, |file| file.bytes),
            server: server.as_ref().map(|file| file.digest),
            error: files.error,
            next_clip: files.next_clip,
            ledger_head: files.ledger_head.clone(),
            notes: files.notes.clone(),
        };
        let each = || std::iter::once(global).chain(frozen).chain(server);
        let putting = self.blobs.lock_for_put().await;
        for file in each() {
            self.blobs.put_file(run, &file.digest, &file.path).await?;
        }
        let reported = self.driver.step(input).await;
        drop(putting);
        match reported {
            Ok(_) => Ok(()),
            Err(DriverError::Rejected(rejection)) => {
                tracing::info!(%run, %rejection, "an aggregate came too late and is dropped");
                let digests = each().map(|file| file.digest).collect();
                drop_unreferenced(&self.driver, &self.blobs, run, digests).await;
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
mod tests;
