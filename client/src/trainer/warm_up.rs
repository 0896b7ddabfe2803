//! The warm-up round's statistics.

use std::ops::ControlFlow;
use std::time::Instant;

use rondo_methods::init::base_svd;
use rondo_methods::tensor::full_name;
use rondo_methods::{Kind as MethodKind, MethodError, TensorSet};
use tch::{Kind, Tensor};

use super::adapted;
use super::error::TrainerError;
use super::local::{self, Examples};
use super::models::Transformer;
use super::session::{Session, to_plain};
use super::step::Plan;
use crate::work::{LocalUpdate, OnProgress, Progress, Work};

/// The gradient of the mean loss over the first examples of the client's order (their counting tokens, for a language
/// model) with respect to each trained part of the probe, which stands at zero. For a probe `x P^T` folded into `y` this is a sketch of the weight's own gradient (one
/// side multiplied with the probe's seeded partner); the gradient itself is never formed.
pub fn gradient(
    session: &Session<'_>,
    work: &Work,
    examples: u32,
    data: Examples<'_>,
    plan: Plan,
    progress: &mut OnProgress<'_>,
) -> Result<LocalUpdate, TrainerError> {
    if data.examples.is_empty() {
        return Err(TrainerError::NoExamples { what: "the training part" });
    }
    let started = Instant::now();
    let wanted = (examples as usize).clamp(1, data.examples.len());
    let batch = (work.run.train.batch as usize).clamp(1, data.examples.len());
    let steps = wanted.div_ceil(batch) as u32;
    let mut order: Vec<Vec<usize>> = Vec::with_capacity(steps as usize);
    let mut left = wanted;
    for mut texts in local::batches(work, data.examples.len()).take(steps as usize) {
        texts.truncate(left);
        left -= texts.len();
        order.push(texts);
    }
    let all: u64 = order.iter().map(|texts| data.units(texts)).sum();
    let parameters = session.parameters()?;
    let mut sums: Vec<Tensor> =
        parameters.iter().map(|p| Tensor::f_zeros(p.size(), (Kind::Double, p.device()))).collect::<Result<_, _>>()?;
    let mut total = 0.0;
    for (step, texts) in (1..=steps).zip(&order) {
        let found = data.gradients(session, texts, plan)?;
        if !found.loss.is_finite() {
            return Err(TrainerError::NotFinite { step, what: "the loss".into() });
        }
        let share = found.units as f64 / all.max(1) as f64;
        total += found.loss * share;
        for (sum, gradient) in sums.iter_mut().zip(&found.tensors) {
            if gradient.defined() {
                let _ = sum.f_add_(&gradient.f_to_kind(Kind::Double)?.f_mul_scalar(share)?)?;
            }
        }
        if progress(Progress { step, steps, loss: found.loss }) == ControlFlow::Break(()) {
            return Err(TrainerError::Interrupted);
        }
    }
    let named = session.trained().iter().zip(&sums);
    let tensors: TensorSet =
        named.map(|((name, _), sum)| Ok((name.clone(), to_plain(sum)?))).collect::<Result<_, TrainerError>>()?;
    Ok(LocalUpdate {
        tensors: local::upload(work, MethodKind::WarmUp, tensors)?,
        examples: data.examples.len() as u64,
        train_loss: total,
        seconds: started.elapsed().as_secs_f64(),
        before: None,
    })
}

/// The truncated SVD of each target's base weight, in f64. Needs no data.
pub fn base_factors(
    model: &dyn Transformer,
    work: &Work,
    progress: &mut OnProgress<'_>,
) -> Result<LocalUpdate, TrainerError> {
    let started = Instant::now();
    let targets = work.job.targets();
    let steps = targets.len() as u32;
    let mut tensors = TensorSet::new();
    for (step, target) in (1..=steps).zip(targets) {
        let weight = to_plain(&adapted::base_weight(model.linears(), &target.name)?)?;
        let factors = base_svd::factors(&weight.to_matrix(), work.job.rank())
            .map_err(|source| TrainerError::Method(MethodError::Linalg { target: target.name.clone(), source }))?;
        tensors.extend(factors.into_iter().map(|(part, tensor)| (full_name(&target.name, &part), tensor)));
        if progress(Progress { step, steps, loss: 0.0 }) == ControlFlow::Break(()) {
            return Err(TrainerError::Interrupted);
        }
    }
    Ok(LocalUpdate {
        tensors: local::upload(work, MethodKind::WarmUp, tensors)?,
        examples: work.data.train().len() as u64,
        train_loss: 0.0,
        seconds: started.elapsed().as_secs_f64(),
        before: None,
    })
}
