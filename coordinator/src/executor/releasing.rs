//! The order of a release: charged in the run's records, entered in the ledger, drawn. Each step is durable before the next
//! begins, so that a crash, or a disk that fails, costs budget and never releases what no book has.

use std::sync::{Arc, PoisonError};

use rondo_dp::LedgerError;
use rondo_methods::Job;
use rondo_rounds::{AggregatePlan, Input, Release, Reply, WorkKey};

use super::compute::started;
use super::{Executor, Failure};
use crate::release::{Released, Sum};

/// What a private run has paid for in one aggregation. A try that fails after it goes on with the same numbers.
#[derive(Default)]
pub(super) struct Paid {
    /// The run's records have the release, and its noise is not drawn.
    pub(super) charged: bool,
    /// The ledger has it too: its head right after.
    pub(super) entered: Option<String>,
    /// It is made.
    pub(super) released: Option<Released>,
}

impl Executor {
    /// Makes a private run's release, unless it was made already.
    pub(super) async fn release(&self, job: &Job, plan: &AggregatePlan, paid: &mut Paid) -> Result<(), Failure> {
        let Some(release) = plan.release.clone().filter(|_| paid.released.is_none()) else { return Ok(()) };
        let (job, blobs, summed, asked) = (job.clone(), Arc::clone(&self.blobs), plan.clone(), release.clone());
        let sum = move || {
            let job = started(&job, &summed, &blobs)?;
            Sum::of(&job, &summed, &asked, |digest| blobs.path(&summed.work.run, digest))
        };
        let sum = tokio::task::spawn_blocking(sum).await??;
        if !paid.charged {
            match self.driver.step(Input::Releasing { work: plan.work.clone() }).await? {
                Reply::Release { granted: true } => paid.charged = true,
                _ => return Err(Failure::Ended),
            }
        }
        if paid.entered.is_none() {
            let (executor, work) = (self.clone(), plan.work.clone());
            let head = tokio::task::spawn_blocking(move || executor.enter(&work, &release)).await??;
            paid.entered = Some(head);
        }
        paid.released = Some(tokio::task::spawn_blocking(move || sum.noised()).await??);
        Ok(())
    }

    /// Enters a release into the ledger and flushes; answers the head that pins it.
    fn enter(&self, work: &WorkKey, release: &Release) -> Result<String, LedgerError> {
        let (round, event) = ((work.round, work.attempt), release.plan.event(1)?);
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.release(work.run.as_str(), &release.domain, round, event, self.clock.now())?;
        Ok(ledger.head().to_string())
    }
}

#[cfg(test)]
#[path = "releasing_tests.rs"]
mod tests;
