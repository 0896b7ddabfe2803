//! From the last layer's states to a loss, and from the loss back to those states.

use rondo_proto::run_file::TaskKind;
use tch::{Reduction, Tensor};

use super::backward::vjp;
use crate::batch::Batch;
use crate::error::TrainerError;
use crate::session::Session;
use crate::step::loss::{PredictedTokens, loss_and_gradient};

/// What texts are trained towards.
#[derive(Debug, Clone, Copy)]
pub enum Objective<'d> {
    /// Labels, one per text; the unit of the mean is the example.
    Labels(&'d [i64]),
    /// The texts' own counting tokens; the unit of the mean is the token.
    Tokens,
}

impl<'d> Objective<'d> {
    /// What a task trains towards; `labels` of the texts, one each, matter to classifications
    /// alone.
    pub fn of_task(kind: TaskKind, labels: &'d [i64]) -> Self {
        if kind.needs_language_model() { Self::Tokens } else { Self::Labels(labels) }
    }
}

/// The terms of a micro-batch's loss.
pub(super) enum LossTerms<'d> {
    /// A label per text, each with this share of the loss.
    Labels { labels: &'d [i64], share: f64 },
    /// Tokens, each with a share of its own.
    Tokens { predicted: PredictedTokens, shares: Vec<f32>, chunk: usize },
}

/// A loss and its gradient.
pub(super) struct LossGradient {
    /// What the micro-batch adds to the batch's loss.
    pub(super) loss: f64,
    /// Its gradient with respect to the last layer's states.
    pub(super) states: Tensor,
    /// Its gradient with respect to the leaves that come after the layers, in their order.
    pub(super) leaves: Vec<Tensor>,
}

/// The loss of a micro-batch and its gradient: the sum over its terms, each times its share.
/// `states` `[tokens, hidden]` is what the last layer gave; the tape that led there is left alone.
pub(super) fn loss_gradient(
    session: &Session<'_>,
    batch: &Batch,
    terms: &LossTerms<'_>,
    states: &Tensor,
    leaves: &[Tensor],
) -> Result<LossGradient, TrainerError> {
    let states = states.f_detach()?.f_set_requires_grad(true)?;
    let mut inputs = vec![states.shallow_clone()];
    inputs.extend(leaves.iter().map(Tensor::shallow_clone));
    let (loss, mut gradients) = match terms {
        LossTerms::Labels { labels, share } => {
            let logits = session.head()?.logits(&session.model().finish(&states)?, batch)?;
            let labels = Tensor::f_from_slice(labels)?.f_to_device(logits.device())?;
            let sum = logits.f_cross_entropy_loss::<Tensor>(&labels, None, Reduction::Sum, -100, 0.0)?;
            let loss = sum.f_mul_scalar(*share)?;
            (loss.f_double_value(&[])?, Tensor::f_run_backward(&[&loss], &inputs, false, false)?)
        }
        LossTerms::Tokens { predicted, shares, chunk } => {
            let rows = Tensor::f_from_slice(&predicted.rows)?.f_to_device(session.device())?;
            // Only the rows that predict a token are finished. `embedding` for its fast gradient.
            let y = session.model().finish(&Tensor::f_embedding(&states, &rows, -1, false, false)?)?;
            let (sum, dy) =
                loss_and_gradient(session.vocabulary()?, &y.f_detach()?, &predicted.tokens, shares, *chunk)?;
            (sum, vjp(&y, &dy, &inputs)?)
        }
    };
    let states = gradients.remove(0);
    Ok(LossGradient { loss, states, leaves: gradients })
}
