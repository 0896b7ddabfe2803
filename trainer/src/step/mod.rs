//! The gradients of one optimiser step: the one place where they come from.
//!
//! A batch is worked through in micro-batches whose gradients are added, each weighted by what it holds, so that the sum
//! is the whole batch's. Each micro-batch goes one of two ways, with equal results: [`plain`] keeps the whole tape;
//! [`checkpointed`] keeps the states between the layers and runs each layer again.

mod checkpointed;
pub mod loss;
mod objective;
mod per_text;
mod plain;

use tch::{Kind, Tensor};

use crate::batch::{Batch, Encoded};
use crate::error::TrainerError;
use crate::session::Session;
use crate::step::loss::Foretold;
use objective::Part;
pub use per_text::{OnGradients, per_text};

/// What the texts are trained towards.
#[derive(Debug, Clone, Copy)]
pub enum Goal<'d> {
    /// Labels, one per text; the unit of the mean is the example.
    Labels(&'d [i64]),
    /// The texts' own counting tokens; the unit of the mean is the token.
    Tokens,
}

/// How a step is carried out; the result does not depend on it beyond rounding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plan {
    /// Keep only the states between layers and run each layer again for its gradients.
    pub checkpoint: bool,
    /// Texts at once; 0 = the whole batch.
    pub micro_batch: usize,
    /// Tokens of one chunk over the vocabulary; 0 = by the vocabulary's size.
    pub chunk: usize,
}

/// Loss and gradients of a batch.
#[derive(Debug)]
pub struct Gradients {
    /// Mean loss over the units, in nats; 0 where there are none.
    pub loss: f64,
    /// Examples or counting tokens.
    pub units: u64,
    /// In the order of [`Session::parameters`] and of their shapes; undefined where the loss does not depend on one.
    pub tensors: Vec<Tensor>,
}

/// Mean loss of these texts and its gradient with respect to the session's parameters.
pub fn gradients(
    session: &Session<'_>,
    encoded: &Encoded,
    texts: &[usize],
    goal: Goal<'_>,
    plan: Plan,
) -> Result<Gradients, TrainerError> {
    let units = |texts: &[usize]| match goal {
        Goal::Labels(_) => texts.len() as u64,
        Goal::Tokens => texts.iter().map(|&text| Foretold::count(encoded, text)).sum(),
    };
    let total = units(texts);
    let leaves = session.leaves();
    let mut sums: Vec<Tensor> = leaves.iter().map(|_| Tensor::new()).collect();
    let mut loss = 0.0;
    for (texts, goal) in micro_batches(texts, goal, plan) {
        if units(texts) == 0 {
            continue;
        }
        let batch = Batch::new(encoded, texts, session.device())?;
        let part = match goal {
            Goal::Labels(labels) => Part::Labels { labels, share: 1.0 / total as f64 },
            Goal::Tokens => {
                let foretold = Foretold::new(encoded, texts);
                let shares = vec![1.0 / total as f32; foretold.tokens.len()];
                Part::Tokens { foretold, shares, chunk: plan.chunk }
            }
        };
        loss += run(session, &batch, &part, plan, &leaves, &mut sums)?;
    }
    Ok(Gradients { loss, units: total, tensors: session.of_leaves(sums)? })
}

/// The texts of each micro-batch, and what they are trained towards.
fn micro_batches<'t>(
    texts: &'t [usize],
    goal: Goal<'t>,
    plan: Plan,
) -> impl Iterator<Item = (&'t [usize], Goal<'t>)> + use<'t> {
    let size = if plan.micro_batch == 0 { texts.len() } else { plan.micro_batch }.max(1);
    texts.chunks(size).enumerate().map(move |(number, part)| match goal {
        Goal::Labels(labels) => (part, Goal::Labels(&labels[number * size..number * size + part.len()])),
        Goal::Tokens => (part, Goal::Tokens),
    })
}

/// One micro-batch, in the way that the plan and the model ask for.
fn run(
    session: &Session<'_>,
    batch: &Batch,
    part: &Part<'_>,
    plan: Plan,
    leaves: &[Tensor],
    sums: &mut [Tensor],
) -> Result<f64, TrainerError> {
    match plan.checkpoint || session.is_packed() {
        true => checkpointed::run(session, batch, part, leaves, sums),
        false => plain::run(session, batch, part, leaves, sums),
    }
}

/// Adds gradients, in f32, to those that are there.
fn add(sums: &mut [Tensor], gradients: &[Tensor]) -> Result<(), TrainerError> {
    for (sum, gradient) in sums.iter_mut().zip(gradients) {
        if !gradient.defined() {
            continue;
        }
        if sum.defined() {
            let _ = sum.f_add_(gradient)?;
        } else {
            *sum = gradient.f_to_kind(Kind::Float)?;
        }
    }
    Ok(())
}

/// The vector-Jacobian product: `dy` with respect to `y`, pulled back to the inputs. Written as the gradient of
/// `sum(y * dy)`, since a backward pass always starts with ones here.
fn pull_back(y: &Tensor, dy: &Tensor, inputs: &[Tensor]) -> Result<Vec<Tensor>, TrainerError> {
    if !y.requires_grad() {
        return Ok(inputs.iter().map(|_| Tensor::new()).collect());
    }
    let root = y.f_mul(dy)?.f_sum(None::<Kind>)?;
    Ok(Tensor::f_run_backward(&[root], inputs, false, false)?)
}
