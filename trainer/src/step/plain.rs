//! One tape over all layers: fastest, and every layer's intermediate results are in memory at once.

use tch::Tensor;

use super::objective::{self, Part};
use super::{add, pull_back};
use crate::batch::Batch;
use crate::error::TrainerError;
use crate::session::Session;

/// Adds a micro-batch's gradients to `sums` and returns its part of the loss.
pub(super) fn run(
    session: &Session<'_>,
    batch: &Batch,
    part: &Part<'_>,
    leaves: &[Tensor],
    sums: &mut [Tensor],
) -> Result<f64, TrainerError> {
    let model = session.model();
    let mut x = model.embed(batch)?;
    for number in 0..model.layers() {
        x = model.layer(number, &x, batch, session.adapters(), None)?;
    }
    let pull = objective::pull(session, batch, part, &x, leaves)?;
    add(sums, &pull.leaves)?;
    add(sums, &pull_back(&x, &pull.states, leaves)?)?;
    Ok(pull.loss)
}
