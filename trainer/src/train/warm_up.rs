//! The warm-up round's statistics.

use std::ops::ControlFlow;
use std::time::Instant;

use rondo_dp::ExamplePlan;
use rondo_methods::init::base_factors;
use rondo_methods::tensor::full_name;
use rondo_methods::{BaseFactors, MethodError, Statistic, TensorSet, WarmUpStep, change};
use rondo_trainer_api::work::{LocalUpdate, OnProgress, Progress, Work};
use tch::{Kind, Tensor};

use crate::adapters;
use crate::error::TrainerError;
use crate::models::Transformer;
use crate::session::{Session, to_plain};
use crate::step::Plan;
use crate::text::rows::Rows;
use crate::train::dp_sgd::DpSgd;
use crate::train::local;

/// The gradient of the mean loss over the first examples of the client's order (their counting
/// tokens, for a language model) with respect to each trained part of the probe, which stands at
/// zero. For a probe `x P^T` folded into `y` this is a sketch of the weight's own gradient (one
/// side multiplied with the probe's seeded partner); the gradient itself is never formed.
///
/// # Errors
/// No usable row, a loss that is not finite, an interruption.
pub fn gradient(
    session: &Session<'_>,
    work: &Work,
    examples: u32,
    rows: &Rows<'_>,
    plan: Plan,
    progress: &mut OnProgress<'_>,
) -> Result<LocalUpdate, TrainerError> {
    if rows.is_empty() {
        return Err(TrainerError::NoExamples { what: "the training part" });
    }
    let started = Instant::now();
    let wanted = (examples as usize).clamp(1, rows.len());
    let batch = (work.run.train.batch as usize).clamp(1, rows.len());
    let steps = wanted.div_ceil(batch) as u32;
    let lengths = rows.lengths();
    let mut order = {
        let mut left = wanted;
        local::batches(work, &lengths).map(move |mut texts| {
            texts.truncate(left.max(1));
            left = left.saturating_sub(texts.len());
            texts
        })
    };
    let parameters = session.parameters()?;
    let mut sums: Vec<Tensor> =
        parameters.iter().map(|p| Tensor::f_zeros(p.size(), (Kind::Double, p.device()))).collect::<Result<_, _>>()?;
    let mut total = 0.0;
    let mut units = 0;
    for step in 1..=steps {
        let found = local::gradients(session, work, &rows.draw(&mut order)?, plan)?;
        if !found.loss.is_finite() {
            return Err(TrainerError::NotFinite { step, what: "the loss".into() });
        }
        units += found.units;
        total += found.loss * found.units as f64;
        for (sum, gradient) in sums.iter_mut().zip(&found.tensors) {
            if gradient.defined() {
                let _ = sum.f_add_(&gradient.f_to_kind(Kind::Double)?.f_mul_scalar(found.units as f64)?)?;
            }
        }
        if progress(Progress { step, steps, loss: found.loss }) == ControlFlow::Break(()) {
            return Err(TrainerError::Interrupted);
        }
    }
    let share = 1.0 / units.max(1) as f64;
    for sum in &mut sums {
        let _ = sum.f_mul_scalar_(share)?;
    }
    Ok(LocalUpdate {
        tensors: named(session, &sums)?,
        examples: local::usable(rows),
        train_loss: total * share,
        seconds: started.elapsed().as_secs_f64(),
        before: None,
    })
}

/// The same for a run with privacy per example: one noised step over a Poisson
/// batch, in which every example's own gradient is clipped over all probes together.
/// `paid` is the plan of that step. The number of examples that the method asks for
/// does not matter: the plan's sampling rate decides.
///
/// # Errors
/// No row, no noise, an interruption.
pub fn noised_gradient(
    session: &Session<'_>,
    work: &Work,
    paid: &ExamplePlan,
    rows: &Rows<'_>,
    plan: Plan,
    progress: &mut OnProgress<'_>,
) -> Result<LocalUpdate, TrainerError> {
    if rows.is_empty() {
        return Err(TrainerError::NoExamples { what: "the training part" });
    }
    let found = DpSgd::new(session, paid)?.step(session, work, rows, plan)?;
    if progress(Progress { step: 1, steps: 1, loss: 0.0 }) == ControlFlow::Break(()) {
        return Err(TrainerError::Interrupted);
    }
    Ok(local::tensors_alone(named(session, &found.tensors)?))
}

/// The gradient of a run with privacy per client: scaled down to an L2 norm of at most
/// `clip` over all probes together. One that diverged, or found no usable row, is
/// zero, so that nothing but the tensors says so.
///
/// # Errors
/// No row, an interruption.
pub fn clipped_gradient(
    session: &Session<'_>,
    work: &Work,
    (examples, clip): (u32, f64),
    rows: &Rows<'_>,
    plan: Plan,
    progress: &mut OnProgress<'_>,
) -> Result<LocalUpdate, TrainerError> {
    if rows.is_empty() {
        return Err(TrainerError::NoExamples { what: "the training part" });
    }
    let zero: Vec<Tensor> = session.parameters()?.iter().map(Tensor::f_zeros_like).collect::<Result<_, _>>()?;
    let zero = named(session, &zero)?;
    let mut tensors = match gradient(session, work, examples, rows, plan, progress) {
        Ok(update) => update.tensors,
        Err(why @ (TrainerError::NoExamples { .. } | TrainerError::NotFinite { .. })) => {
            tracing::warn!(%why, "a statistic of zeros is sent");
            zero.clone()
        }
        Err(error) => return Err(error),
    };
    change::clip(&zero, &mut tensors, clip);
    Ok(local::tensors_alone(tensors))
}

/// Tensors in the order of the session's trained ones, by full name.
fn named(session: &Session<'_>, tensors: &[Tensor]) -> Result<TensorSet, TrainerError> {
    let named = session.trained().iter().zip(tensors);
    named.map(|((name, _), tensor)| Ok((name.clone(), to_plain(tensor)?))).collect()
}

/// Two steps of one warm-up as one update: its tensors and seconds are those of both; its examples
/// and its loss are those of the later step that read data.
pub(crate) fn joined(before: LocalUpdate, after: LocalUpdate, statistic: Statistic) -> LocalUpdate {
    let reported = if statistic.reads_data() { &after } else { &before };
    let examples = reported.examples;
    let train_loss = reported.train_loss;
    let seconds = before.seconds + after.seconds;
    let mut tensors = before.tensors;
    tensors.extend(after.tensors);
    LocalUpdate { tensors, examples, train_loss, seconds, before: None }
}

/// Factors of each target's weight as the run finds it, in f64: the base's, with the adapter that
/// the run starts from in it. Needs no data.
///
/// # Errors
/// A target that the model does not have, a decomposition that fails, an interruption.
pub fn base_factors(
    model: &dyn Transformer,
    work: &Work,
    factors: BaseFactors,
    asked: &WarmUpStep,
    progress: &mut OnProgress<'_>,
) -> Result<LocalUpdate, TrainerError> {
    let started = Instant::now();
    let steps = asked.probes.len() as u32;
    let mut tensors = TensorSet::new();
    for (step, probe) in (1..=steps).zip(&asked.probes) {
        let index = probe.target;
        let target = &work.job.targets()[index];
        let specs = probe.layout.iter().map(|named| &named.spec);
        // Probes of other parts were refused when the job was made.
        let rank = base_factors::rank_of(factors, specs).unwrap_or(work.rank);
        let failed = |source| TrainerError::Method(source);
        let mut weight = to_plain(&adapters::base_weight(model.linears(), &target.name)?)?.to_matrix();
        for (_, delta, parts) in work.state.merged.iter().filter(|(layer, ..)| *layer == index) {
            let change =
                delta.dense(parts).map_err(|source| MethodError::Delta { target: target.name.clone(), source });
            weight.add_scaled(1.0, &change.map_err(failed)?);
        }
        let made = base_factors::compute(factors, &weight, rank)
            .map_err(|source| failed(MethodError::Linalg { target: target.name.clone(), source }))?;
        tensors.extend(made.into_iter().map(|(part, tensor)| (full_name(&target.name, &part), tensor)));
        if progress(Progress { step, steps, loss: 0.0 }) == ControlFlow::Break(()) {
            return Err(TrainerError::Interrupted);
        }
    }
    Ok(LocalUpdate {
        tensors,
        // No data was read, and with privacy not even their number is reported.
        examples: if work.run.privacy.is_some() { 0 } else { work.data.train().len() as u64 },
        train_loss: 0.0,
        seconds: started.elapsed().as_secs_f64(),
        before: None,
    })
}
