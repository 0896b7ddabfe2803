//! One tape over all layers: fastest, and every layer's intermediate results are in memory at once.

use tch::Tensor;

use super::backward::{accumulate, vjp};
use super::objective::{self, LossTerms};
use crate::batch::Batch;
use crate::error::TrainerError;
use crate::session::Session;

/// Adds a micro-batch's gradients to `sums` and returns what it adds to the loss.
pub(super) fn run(
    session: &Session<'_>,
    batch: &Batch,
    terms: &LossTerms<'_>,
    leaves: &[Tensor],
    sums: &mut [Tensor],
) -> Result<f64, TrainerError> {
    let model = session.model();
    let mut x = model.embed(batch)?;
    for number in 0..model.layers() {
        x = model.layer(number, &x, batch, session.adapters(), None)?;
    }
    let gradient = objective::loss_gradient(session, batch, terms, &x, leaves)?;
    accumulate(sums, &gradient.leaves)?;
    accumulate(sums, &vjp(&x, &gradient.states, leaves)?)?;
    Ok(gradient.loss)
}
