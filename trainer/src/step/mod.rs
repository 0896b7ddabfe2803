//! The gradients of one optimiser step: the one place where they come from.
//!
//! A batch is worked through in micro-batches whose gradients are added, each weighted by what it
//! holds, so that the sum is the whole batch's. Each micro-batch runs in one of two modes, with
//! equal results: [`plain`] keeps the whole tape; [`checkpointed`] keeps the states between the
//! layers and runs each layer again.

mod backward;
mod checkpointed;
pub mod loss;
mod objective;
mod per_text;
mod plain;

use tch::Tensor;

use crate::batch::{Batch, Encoded};
use crate::error::TrainerError;
use crate::session::Session;
use crate::step::loss::PredictedTokens;
use objective::LossTerms;

pub use objective::Objective;
pub use per_text::{OnGradients, per_text};

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
    /// In the order of [`Session::parameters`] and of their shapes; undefined where the loss does
    /// not depend on one.
    pub tensors: Vec<Tensor>,
}

/// Mean loss of these texts and its gradient with respect to the session's parameters.
///
/// # Errors
/// Labels without a classifier, tokens without a language model, whatever libtorch refuses.
pub fn gradients(
    session: &Session<'_>,
    encoded: &Encoded,
    texts: &[usize],
    objective: Objective<'_>,
    plan: Plan,
) -> Result<Gradients, TrainerError> {
    let units = |texts: &[usize]| match objective {
        Objective::Labels(_) => texts.len() as u64,
        Objective::Tokens => texts.iter().map(|&text| PredictedTokens::count(encoded, text)).sum(),
    };
    let total = units(texts);
    let leaves = session.leaves();
    let mut sums: Vec<Tensor> = leaves.iter().map(|_| Tensor::new()).collect();
    let mut loss = 0.0;
    for (texts, objective) in micro_batches(texts, objective, plan) {
        if units(texts) == 0 {
            continue;
        }
        let batch = Batch::new(encoded, texts, session.device())?;
        let terms = match objective {
            Objective::Labels(labels) => LossTerms::Labels { labels, share: 1.0 / total as f64 },
            Objective::Tokens => {
                let predicted = PredictedTokens::new(encoded, texts);
                let shares = vec![1.0 / total as f32; predicted.tokens.len()];
                LossTerms::Tokens { predicted, shares, chunk: plan.chunk }
            }
        };
        loss += run(session, &batch, &terms, plan, &leaves, &mut sums)?;
    }
    Ok(Gradients { loss, units: total, tensors: session.of_leaves(sums)? })
}

/// The texts of each micro-batch, and what they are trained towards.
fn micro_batches<'t>(
    texts: &'t [usize],
    objective: Objective<'t>,
    plan: Plan,
) -> impl Iterator<Item = (&'t [usize], Objective<'t>)> + use<'t> {
    let size = if plan.micro_batch == 0 { texts.len() } else { plan.micro_batch }.max(1);
    texts.chunks(size).enumerate().map(move |(number, part)| match objective {
        Objective::Labels(labels) => (part, Objective::Labels(&labels[number * size..number * size + part.len()])),
        Objective::Tokens => (part, Objective::Tokens),
    })
}

/// One micro-batch, checkpointed where the plan or the model asks for it. Returns what it adds to
/// the loss.
fn run(
    session: &Session<'_>,
    batch: &Batch,
    terms: &LossTerms<'_>,
    plan: Plan,
    leaves: &[Tensor],
    sums: &mut [Tensor],
) -> Result<f64, TrainerError> {
    match plan.checkpoint || session.is_packed() {
        true => checkpointed::run(session, batch, terms, leaves, sums),
        false => plain::run(session, batch, terms, leaves, sums),
    }
}
