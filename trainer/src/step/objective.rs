//! From the last layer's states to a loss, and from the loss back to those states.

use tch::{Reduction, Tensor};

use super::pull_back;
use crate::batch::Batch;
use crate::error::TrainerError;
use crate::session::Session;
use crate::step::loss::{Foretold, loss_and_pull};

/// What a micro-batch is trained towards.
pub(super) enum Part<'d> {
    /// A label per text, each with this share of the loss.
    Labels { labels: &'d [i64], share: f64 },
    /// Tokens, each with a share of its own.
    Tokens { foretold: Foretold, shares: Vec<f32>, chunk: usize },
}

/// A loss and where it pulls.
pub(super) struct Pull {
    /// The micro-batch's part of the loss.
    pub(super) loss: f64,
    /// Its gradient with respect to the last layer's states.
    pub(super) states: Tensor,
    /// Its gradient with respect to the leaves that come after the layers, in their order.
    pub(super) leaves: Vec<Tensor>,
}

/// The loss of a micro-batch: the sum over its units, each times its share. `states` `[tokens, hidden]` is what the last
/// layer gave; the tape that led there is left alone.
pub(super) fn pull(
    session: &Session<'_>,
    batch: &Batch,
    part: &Part<'_>,
    states: &Tensor,
    leaves: &[Tensor],
) -> Result<Pull, TrainerError> {
    let states = states.f_detach()?.f_set_requires_grad(true)?;
    let mut inputs = vec![states.shallow_clone()];
    inputs.extend(leaves.iter().map(Tensor::shallow_clone));
    let (loss, mut gradients) = match part {
        Part::Labels { labels, share } => {
            let logits = session.head()?.logits(&session.model().finish(&states)?, batch)?;
            let labels = Tensor::f_from_slice(labels)?.f_to_device(logits.device())?;
            let sum = logits.f_cross_entropy_loss::<Tensor>(&labels, None, Reduction::Sum, -100, 0.0)?;
            let loss = sum.f_mul_scalar(*share)?;
            (loss.f_double_value(&[])?, Tensor::f_run_backward(&[&loss], &inputs, false, false)?)
        }
        Part::Tokens { foretold, shares, chunk } => {
            let rows = Tensor::f_from_slice(&foretold.rows)?.f_to_device(session.device())?;
            // Only the rows that foretell something are finished. `embedding` for its fast gradient.
            let y = session.model().finish(&Tensor::f_embedding(&states, &rows, -1, false, false)?)?;
            let (sum, dy) = loss_and_pull(session.vocabulary()?, &y.f_detach()?, &foretold.tokens, shares, *chunk)?;
            (sum, pull_back(&y, &dy, &inputs)?)
        }
    };
    let states = gradients.remove(0);
    Ok(Pull { loss, states, leaves: gradients })
}
