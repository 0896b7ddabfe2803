//! What a run that promises privacy per client publishes of its clients' updates: one noised sum of clipped changes.
//!
//! Every update's change from what the round began with is clipped onto a lattice and added to one sum of integers, noise
//! is drawn on it once, and the result is divided by the run's constant divisor. It then stands for the round's only
//! update: laws, server optimisers and refactoring see nothing else.

use std::path::{Path, PathBuf};

use rondo_dp::{GaussianMechanism, Lattice, LatticeError, MechanismError, Tally};
use rondo_methods::change::norm;
use rondo_methods::{FileError, Job, LawKind, MethodError, RoundStart, TensorSet};
use rondo_proto::Digest;
use rondo_rounds::{AggregatePlan, Release, RoundKind};

/// Why nothing was released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
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

/// The sum of a round's clipped changes, before its noise: private, and never written anywhere. It knows nothing of
/// budgets and books; the executor does, in their order.
pub struct Sum {
    start: RoundStart,
    mechanism: GaussianMechanism,
    sum: Vec<i64>,
    divisor: f64,
    /// Of a clip that moves: how many changes it left whole.
    tally: Option<Tally>,
}

impl Sum {
    /// Adds up the updates of a plan. Holds one adapter, one change and the sum, however many clients there are.
    pub fn of(
        job: &Job,
        plan: &AggregatePlan,
        release: &Release,
        path: impl Fn(&Digest) -> PathBuf,
    ) -> Result<Self, ReleaseError> {
        let frozen = plan.frozen.as_ref().map(&path);
        let published: Vec<PathBuf> = plan.published.iter().map(&path).collect();
        let start = match plan.kind {
            RoundKind::WarmUp => job.warm_up_start(),
            RoundKind::Train => job.round_start(plan.work.round, frozen.as_deref(), &published)?,
        };
        let Release { plan: noise, clip, .. } = release;
        let lattice = Lattice::new(*clip, noise.sum_noise_multiplier(), start.dimension())?;
        let (mechanism, zero) = (GaussianMechanism::new(lattice)?, vec![0; lattice.dimension()]);
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

    fn add(&mut self, update: &Path, change: &mut Vec<f64>) -> Result<(), ReleaseError> {
        self.start.change(update, change)?;
        // Whether a client was clipped, or was not finite and counts as nothing, is told to nobody.
        let _ = self.mechanism.lattice().add(&[change.as_slice()], &mut self.sum)?;
        if let Some(tally) = &mut self.tally {
            tally.add(norm(change.iter().copied()))?;
        }
        Ok(())
    }

    /// Draws the noise and gives the tensors that stand for the mean of the updates. To be called once the release is
    /// charged and entered: it has happened when this returns, whatever becomes of the numbers.
    pub fn noised(mut self) -> Result<Released, ReleaseError> {
        let mut mean = self.mechanism.release(&self.sum)?;
        // Always by the same number: how many updates came is not to be told by their mean.
        mean.iter_mut().for_each(|number| *number /= self.divisor);
        let next_clip = self.tally.map(Tally::next_clip).transpose()?;
        Ok(Released { tensors: self.start.changed(&mean), next_clip })
    }
}

/// What was released. All of it may be published, and it may be used again: the same numbers cost nothing more.
#[derive(Debug, Clone)]
pub struct Released {
    /// The noised mean, as the tensors of one update.
    pub tensors: TensorSet,
    /// The clip of the next round, where it moves.
    pub next_clip: Option<f64>,
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;
