//! What a run with privacy per client publishes of its clients' updates: one noised sum of clipped
//! changes.
//!
//! Every update's change from the start of the round is clipped onto a lattice and added to one sum
//! of integers. Noise is drawn on the sum once, and the result is divided by the run's constant
//! divisor. The result then stands for the round's only update: laws, server optimisers and
//! refactoring see nothing else.

use std::path::{Path, PathBuf};

use rondo_dp::{GaussianMechanism, Lattice, LatticeError, MechanismError, Tally};
use rondo_methods::change::norm;
use rondo_methods::{FileError, Job, LawKind, MethodError, RoundStart, TensorSet};
use rondo_proto::Digest;
use rondo_rounds::{AggregatePlan, Release, RoundKind};

/// Why nothing was released.
#[derive(Debug, thiserror::Error)]
pub enum DpReleaseError {
    /// What the round began with cannot be built.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// An update cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The sum has no lattice.
    #[error(transparent)]
    Lattice(#[from] LatticeError),
    /// No noise.
    #[error(transparent)]
    Mechanism(#[from] MechanismError),
}

/// The sum of a round's clipped changes, before its noise: private, and never written anywhere. The
/// executor sees to budgets and the ledger.
pub struct ClippedSum {
    start: RoundStart,
    mechanism: GaussianMechanism,
    sum: Vec<i64>,
    divisor: f64,
    /// Of a clip that moves: how many changes it left whole.
    tally: Option<Tally>,
}

impl ClippedSum {
    /// Adds up the updates of a plan. Holds one adapter, one change and the sum, the last two of
    /// shape `[dimension]`, however many clients there are.
    ///
    /// # Errors
    /// The start of the round cannot be built, an update cannot be read, or the noise has no
    /// lattice or mechanism.
    pub fn of(
        job: &Job,
        plan: &AggregatePlan,
        release: &Release,
        path: impl Fn(&Digest) -> PathBuf,
    ) -> Result<Self, DpReleaseError> {
        let frozen = plan.frozen.as_ref().map(&path);
        let published: Vec<PathBuf> = plan.published.iter().map(&path).collect();
        let start = match plan.kind {
            RoundKind::WarmUp => job.warm_up_start(),
            RoundKind::Train => job.round_start(plan.work.round, frozen.as_deref(), &published)?,
        };
        let Release { plan: noise, clip, .. } = release;
        let lattice = Lattice::new(*clip, noise.sum_noise_multiplier(), start.dimension())?;
        let mechanism = GaussianMechanism::new(lattice)?;
        let zero = vec![0; lattice.dimension()];
        let tally = noise.adaptive.map(|adaptive| adaptive.tally(*clip)).transpose()?;
        // A warm-up whose law is a sum stays one.
        let is_sum = plan.kind == RoundKind::WarmUp && job.warm_up_law() == Some(LawKind::Sum);
        let divisor = if is_sum { 1.0 } else { noise.divisor };
        let mut sum = Self { start, mechanism, sum: zero, divisor, tally };
        let mut change = Vec::with_capacity(lattice.dimension());
        for update in &plan.updates {
            sum.add(&path(&update.digest), &mut change)?;
        }
        Ok(sum)
    }

    fn add(&mut self, update: &Path, change: &mut Vec<f64>) -> Result<(), DpReleaseError> {
        self.start.change(update, change)?;
        // Whether a client was clipped, or was not finite and counts as nothing, is private.
        let _ = self.mechanism.lattice().add(&[change.as_slice()], &mut self.sum)?;
        if let Some(tally) = &mut self.tally {
            tally.add(norm(change.iter().copied()))?;
        }
        Ok(())
    }

    /// Draws the noise and returns the tensors that stand for the mean of the updates, in the
    /// shapes of one update. Call it once the release is charged and entered: it has happened when
    /// this returns, whatever becomes of the numbers.
    ///
    /// # Errors
    /// The system gives no random bytes, or opendp refuses the noise.
    pub fn add_noise(mut self) -> Result<NoisedMean, DpReleaseError> {
        let mut mean = self.mechanism.release(&self.sum)?;
        // Always by the same number: the mean must not show how many updates came.
        mean.iter_mut().for_each(|number| *number /= self.divisor);
        let next_clip = self.tally.map(Tally::next_clip).transpose()?;
        Ok(NoisedMean { tensors: self.start.changed(&mean), next_clip })
    }
}

/// What was released. All of it may be published, and it may be used again: the same numbers cost
/// nothing more.
#[derive(Debug, Clone)]
pub struct NoisedMean {
    /// The noised mean, as the tensors of one update.
    pub tensors: TensorSet,
    /// The clip of the next round, where it moves.
    pub next_clip: Option<f64>,
}

#[cfg(test)]
mod tests;
