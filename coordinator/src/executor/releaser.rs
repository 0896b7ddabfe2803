//! The order of a private release: charge the run's records, enter the ledger, draw the noise.
//!
//! Each step is durable before the next begins. So a crash, or a disk that fails, costs budget, and
//! it never releases what no record and no ledger has.

use std::sync::{Arc, Mutex, PoisonError};

use rondo_dp::{Ledger, LedgerError};
use rondo_methods::Job;
use rondo_rounds::{AggregatePlan, Input, Release, Reply, WorkKey};

use super::compute::started;
use super::error::AggregationError;
use crate::clock::Clock;
use crate::dp_release::{ClippedSum, NoisedMean};
use crate::driver::Driver;
use crate::store::blobs::Blobs;

/// How far the release of one aggregation has come. A try that fails later goes on with the same
/// numbers.
#[derive(Default)]
pub(super) struct ReleaseState {
    /// The run's records have the release, and its noise is not drawn.
    pub(super) charged: bool,
    /// The ledger has it too: its head right after.
    pub(super) entered: Option<String>,
    /// It is made.
    pub(super) released: Option<NoisedMean>,
}

/// Makes the releases of runs with privacy per client.
#[derive(Clone)]
pub(super) struct Releaser {
    pub(super) driver: Driver,
    pub(super) blobs: Arc<Blobs>,
    /// What was released of private runs.
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Releaser {
    /// Makes the release of a plan, unless it was made already or the plan has none.
    pub(super) async fn release(
        &self,
        job: &Job,
        plan: &AggregatePlan,
        state: &mut ReleaseState,
    ) -> Result<(), AggregationError> {
        if state.released.is_some() {
            return Ok(());
        }
        let Some(release) = plan.release.clone() else { return Ok(()) };
        let sum = self.sum(job, plan, &release).await?;
        if !state.charged {
            match self.driver.step(Input::Releasing { work: plan.work.clone() }).await? {
                Reply::Release { granted: true } => state.charged = true,
                _ => return Err(AggregationError::Ended),
            }
        }
        if state.entered.is_none() {
            let releaser = self.clone();
            let work = plan.work.clone();
            let head = tokio::task::spawn_blocking(move || releaser.enter(&work, &release)).await??;
            state.entered = Some(head);
        }
        state.released = Some(tokio::task::spawn_blocking(move || sum.add_noise()).await??);
        Ok(())
    }

    /// The sum of the clipped changes, before its noise.
    async fn sum(&self, job: &Job, plan: &AggregatePlan, release: &Release) -> Result<ClippedSum, AggregationError> {
        let job = job.clone();
        let plan = plan.clone();
        let release = release.clone();
        let blobs = Arc::clone(&self.blobs);
        let sum = move || -> Result<ClippedSum, AggregationError> {
            let job = started(&job, &plan, &blobs)?;
            Ok(ClippedSum::of(&job, &plan, &release, |digest| blobs.path(&plan.work.run, digest))?)
        };
        tokio::task::spawn_blocking(sum).await?
    }

    /// Enters a release into the ledger and flushes; returns the head that pins it.
    fn enter(&self, work: &WorkKey, release: &Release) -> Result<String, LedgerError> {
        let event = release.plan.event(1)?;
        let round = (work.round, work.attempt);
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.release(work.run.as_str(), &release.domain, round, event, self.clock.now())?;
        Ok(ledger.head().to_string())
    }
}

#[cfg(test)]
mod tests;
