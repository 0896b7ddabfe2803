//! The executor: carries out the engine's effects. Every order names its run, round and attempt and may come twice.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rondo_methods::{AggregateInput, AggregateOutput, Contribution, Job, MethodError};
use rondo_proto::{Digest, RunId};
use rondo_rounds::{AggregatePlan, Effect, Input, WorkKey};
use tokio::sync::{Semaphore, mpsc};

use crate::driver::{Driver, DriverError, Order};
use crate::garbage::drop_unneeded;
use crate::store::blobs::{BlobError, Blobs};
use crate::upload::staging::Staging;

/// Pauses before a result is handed in again, or a full disk tried again.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// Carries out effects.
#[derive(Clone)]
pub struct Executor {
    driver: Driver,
    blobs: Arc<Blobs>,
    staging: Arc<Staging>,
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

impl Executor {
    /// An executor that reports to this driver.
    pub fn new(driver: Driver, blobs: Arc<Blobs>, staging: Arc<Staging>) -> Self {
        let aggregating = Arc::new(Semaphore::new(1));
        Self { driver, blobs, staging, under_way: Arc::default(), aggregating }
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
                    tracing::info!(run = event.run, round = event.round, client = event.client, "{}", event.text);
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
        let outcome = self.try_aggregate(plan, &folder).await;
        let input = match outcome {
            Ok(_) => return self.clear(&folder).await,
            Err(Failure::Ended | Failure::Driver(DriverError::Stopped)) => return self.clear(&folder).await,
            Err(failure) => {
                tracing::error!(%run, round, attempt, error = %failure, "aggregation failed");
                Input::AggregateFailed { work: work.clone(), reason: failure.to_string() }
            }
        };
        if let Err(error) = self.report(input).await {
            tracing::warn!(%run, round, attempt, %error, "a failed aggregation was not wanted any more");
        }
        self.clear(&folder).await;
    }

    async fn try_aggregate(&self, plan: AggregatePlan, folder: &Path) -> Result<(), Failure> {
        // The semaphore is never closed.
        let _turn = self.aggregating.acquire().await.map_err(|_| Failure::Ended)?;
        let work = plan.work.clone();
        let run = work.run.clone();
        let asked = run.clone();
        let job = self.driver.view(move |engine| engine.job(&asked).cloned()).await?.ok_or(Failure::Ended)?;
        self.clear(folder).await;
        tokio::fs::create_dir_all(folder).await.map_err(|source| Failure::File {
            action: "make",
            path: folder.to_owned(),
            source,
        })?;
        let blobs = Arc::clone(&self.blobs);
        let out_dir = folder.to_owned();
        let output = tokio::task::spawn_blocking(move || compute(&job, &plan, &blobs, &out_dir)).await??;

        let putting = self.blobs.putting().await;
        let (global, global_bytes) = self.put(&run, &output.global).await?;
        let frozen = match &output.frozen {
            Some(path) => Some(self.put(&run, path).await?),
            None => None,
        };
        let input = Input::Aggregated {
            work,
            global,
            global_bytes,
            frozen: frozen.map(|(digest, _)| digest),
            frozen_bytes: frozen.map_or(0, |(_, bytes)| bytes),
            error: output.error,
            notes: output.notes,
        };
        let reported = self.report(input).await;
        drop(putting);
        match reported {
            Ok(()) => Ok(()),
            Err(DriverError::Rejected(rejection)) => {
                tracing::info!(%run, %rejection, "an aggregate came too late and is dropped");
                let made: Vec<Digest> = std::iter::once(global).chain(frozen.map(|(digest, _)| digest)).collect();
                drop_unneeded(&self.driver, &self.blobs, &run, made).await;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Hashes a file and stores it; a full disk is tried again.
    async fn put(&self, run: &RunId, path: &Path) -> Result<(Digest, u64), Failure> {
        let failed = |source| Failure::File { action: "read", path: path.to_owned(), source };
        let hashed = path.to_owned();
        let digest = tokio::task::spawn_blocking(move || Digest::of_file(&hashed)).await?.map_err(failed)?;
        let bytes = tokio::fs::metadata(path).await.map_err(failed)?.len();
        let mut pauses = PAUSES.iter();
        loop {
            match (self.blobs.put_file(run, &digest, path).await, pauses.next()) {
                (Ok(()), _) => return Ok((digest, bytes)),
                (Err(error), Some(pause)) => {
                    tracing::warn!(%run, %error, "cannot store an aggregate, trying again");
                    tokio::time::sleep(*pause).await;
                }
                (Err(error), None) => return Err(error.into()),
            }
        }
    }

    /// Hands a result in until the store takes it: without it the run would stand still.
    async fn report(&self, input: Input) -> Result<(), DriverError> {
        let mut pauses = PAUSES.iter().chain(std::iter::repeat(&PAUSES[PAUSES.len() - 1]));
        loop {
            match (self.driver.step(input.clone()).await, pauses.next()) {
                (Err(DriverError::Store(error)), Some(pause)) => {
                    tracing::warn!(error, "cannot record a result, trying again");
                    tokio::time::sleep(*pause).await;
                }
                (outcome, _) => return outcome.map(|_| ()),
            }
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

fn compute(job: &Job, plan: &AggregatePlan, blobs: &Blobs, out_dir: &Path) -> Result<AggregateOutput, MethodError> {
    let path = |digest: &Digest| blobs.path(&plan.work.run, digest);
    let updates = plan.updates.iter().map(|update| Contribution {
        client: update.client.to_string(),
        weight: update.weight,
        rank: update.rank as usize,
        path: path(&update.digest),
    });
    job.aggregate(AggregateInput {
        kind: plan.kind.into(),
        round: plan.work.round,
        updates: updates.collect(),
        frozen: plan.frozen.as_ref().map(path),
        published: plan.published.iter().map(path).collect(),
        out_dir,
        progress: &|done, total| tracing::debug!(run = %plan.work.run, done, total, "aggregating"),
    })
}
