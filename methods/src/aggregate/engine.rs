//! The engine of every aggregation: it drives a law over the clients of one target and forms the
//! dense mean that the aggregation error is measured against. Where a client's tensors come from is
//! its caller's affair: the files of a run's round ([`super::round`]), or files alone
//! ([`crate::offline`]).

use super::finite::{check, not_finite};
use super::input::Contribution;
use crate::delta::Delta;
use crate::error::MethodError;
use crate::exactness::AggregationError;
use crate::law::{LawContext, LawKind, LawOutput, TargetUpdate, pair_dense};
use crate::linalg::{LinalgError, Matrix};
use crate::tensor::{TensorSet, full_name};

/// What is aggregated for one target, and by which law.
pub(crate) struct TargetPlan<'p> {
    pub(crate) law: LawKind,
    pub(crate) context: LawContext<'p>,
    /// The clients, in the order in which they are summed or stacked.
    pub(crate) updates: &'p [Contribution],
    pub(crate) dense_mean: DenseMean,
}

/// Whether the engine forms the weighted mean of the clients' dense deltas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DenseMean {
    /// Always: a tensor that a client's delta lacks is an error.
    Required,
    /// Where the tensors of all clients' deltas are at hand.
    WherePossible,
    /// Never.
    Skipped,
}

/// One client's part of a target, as its source found it.
pub(crate) struct ClientTensors {
    /// What the tensors stand for.
    pub(crate) delta: Delta,
    /// By part name: those that the client sent, and those that it held.
    pub(crate) tensors: TensorSet,
    /// The parts that are aggregated.
    pub(crate) sent: Vec<String>,
}

/// What the engine made of one target.
pub(crate) struct TargetAggregate {
    pub(crate) output: LawOutput,
    /// sum_k w_k dW_k, `[out, in]`; none where it was not asked for, or where a client's delta
    /// lacks a tensor.
    pub(crate) mean: Option<Matrix>,
}

impl<'p> TargetPlan<'p> {
    /// The plain mean of tensors that stand for no delta: the classifier head's.
    pub(crate) fn mean_of(owner: &'p str, updates: &'p [Contribution]) -> Self {
        Self { law: LawKind::Mean, context: LawContext::of(owner), updates, dense_mean: DenseMean::Skipped }
    }

    /// Takes the clients one after another: `read` brings a client's tensors, `absorbed` is called
    /// when the law has taken them.
    pub(crate) fn run(
        &self,
        read: impl Fn(&Contribution) -> Result<ClientTensors, MethodError>,
        absorbed: impl Fn(),
    ) -> Result<TargetAggregate, MethodError> {
        let mut law = self.law.start(&self.context);
        let mut mean: Option<Matrix> = None;
        let mut measurable = self.dense_mean != DenseMean::Skipped;
        for update in self.updates {
            let ClientTensors { delta, tensors, sent } = read(update)?;
            if self.dense_mean == DenseMean::WherePossible {
                measurable &= delta.parts().iter().all(|part| tensors.contains_key(*part));
            }
            if measurable {
                self.add_dense(&mut mean, update, &delta, &tensors)?;
            }
            let client = update.client.as_str();
            let weight = update.weight;
            law.absorb(&TargetUpdate { client, weight, delta: &delta, tensors: &tensors, sent: &sent })?;
            absorbed();
        }
        let output = law.finish().map_err(|error| match error {
            // Decompositions refuse what overflowed before them.
            MethodError::Linalg { source: LinalgError::NotFinite { .. }, .. } => {
                let what = format!("the aggregate of target `{}`", self.context.target);
                not_finite(self.context.target, what, f64::INFINITY, self.updates)
            }
            error => error,
        })?;
        for (part, tensor) in &output.tensors {
            check(self.context.target, &full_name(self.context.target, part), tensor, self.updates)?;
        }
        Ok(TargetAggregate { output, mean: mean.filter(|_| measurable) })
    }

    fn add_dense(
        &self,
        mean: &mut Option<Matrix>,
        update: &Contribution,
        delta: &Delta,
        tensors: &TensorSet,
    ) -> Result<(), MethodError> {
        let target = self.context.target;
        let dense = delta.dense(tensors).map_err(|source| MethodError::delta(target, source))?;
        let got = (dense.rows(), dense.cols());
        let mean = mean.get_or_insert_with(|| Matrix::zeros(got.0, got.1));
        let expected = (mean.rows(), mean.cols());
        if got != expected {
            let path = update.path.display();
            let first = self.updates[0].path.display();
            let problem = format!("target `{target}` is {got:?} in {path}, but {expected:?} in {first}");
            return Err(MethodError::Contributions(problem));
        }
        mean.add_scaled(update.weight, &dense);
        Ok(())
    }

    /// Adds to `error` how far the published change is from `mean` `[out, in]`. `whole` holds the
    /// target's tensors after the round, `pair` the factors that the law merges into the base; the
    /// published change is what both stand for together.
    pub(crate) fn measure(
        &self,
        error: &mut AggregationError,
        mean: &Matrix,
        whole: &TensorSet,
        pair: &TensorSet,
    ) -> Result<(), MethodError> {
        let failed = |source| MethodError::delta(self.context.target, source);
        let mut published = Matrix::zeros(mean.rows(), mean.cols());
        if let Some(delta) = self.context.delta.filter(|_| self.law.keeps_tensors()) {
            published = delta.dense(whole).map_err(failed)?;
        }
        if let Some(names) = self.law.merged() {
            published.add_scaled(1.0, &pair_dense(names, pair).map_err(failed)?);
        }
        error.add(&published, mean);
        match error.relative().filter(|relative| !relative.is_finite()) {
            None => Ok(()),
            Some(value) => {
                let what = format!("the aggregation error of target `{}`", self.context.target);
                Err(not_finite(self.context.target, what, value, self.updates))
            }
        }
    }
}

/// Refuses shares that do not sum to 1.
pub(crate) fn check_shares(updates: &[Contribution]) -> Result<(), MethodError> {
    let sum: f64 = updates.iter().map(|update| update.weight).sum();
    let sound = updates.iter().all(|update| update.weight.is_finite() && update.weight >= 0.0);
    if sound && (sum - 1.0).abs() <= 1e-6 {
        return Ok(());
    }
    let problem = format!("shares must be finite, not negative and sum to 1, they sum to {sum}");
    Err(MethodError::Contributions(problem))
}
