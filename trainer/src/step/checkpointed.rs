//! States between the layers are kept, what happens inside a layer is computed again for its
//! gradients (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", with one segment
//! per layer).
//!
//! Memory holds one layer's tape at a time. A packed base needs this mode: its weights are unpacked
//! for each use, and a tape over all layers would keep every unpacked matrix until the backward
//! pass.

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
    let adapters = session.adapters();
    let mut states = Vec::with_capacity(model.layers());
    let mut x = {
        let _no_grad = tch::no_grad_guard();
        let mut x = model.embed(batch)?;
        for number in 0..model.layers() {
            let next = model.layer(number, &x, batch, adapters, None)?;
            states.push(x);
            x = next;
        }
        x
    };
    let gradient = objective::loss_gradient(session, batch, terms, &x, leaves)?;
    accumulate(sums, &gradient.leaves)?;
    let mut dy = gradient.states;
    while let Some(below) = states.pop() {
        x = below.f_detach()?.f_set_requires_grad(true)?;
        let y = model.layer(states.len(), &x, batch, adapters, None)?;
        // Which leaves a layer holds is for the tape to say: those it does not reach come back
        // undefined.
        let mut inputs = vec![x.shallow_clone()];
        inputs.extend(leaves.iter().map(Tensor::shallow_clone));
        let mut gradients = vjp(&y, &dy, &inputs)?;
        dy = gradients.remove(0);
        accumulate(sums, &gradients)?;
    }
    Ok(gradient.loss)
}
