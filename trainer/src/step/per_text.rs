//! Every text's own gradient, exactly, with the arithmetic of one batch.
//!
//! Each text gets a copy of the trained tensors; the backward pass of the sum over texts then leaves each text's gradient
//! with its copy. Nothing in the models mixes texts, so a text's gradient depends on its neighbours by the rounding alone
//! that the shape of the batch brings.

use tch::{Kind, Tensor};

use super::objective::Part;
use super::{Goal, Plan, micro_batches, run};
use crate::batch::{Batch, Encoded};
use crate::error::TrainerError;
use crate::session::Session;
use crate::step::loss::Foretold;

/// Called with the gradients of a micro-batch: in the order of [`Session::parameters`], each `[b, ...]` in f32.
pub type OnGradients<'a> = dyn FnMut(&[Tensor]) -> Result<(), TrainerError> + 'a;

/// Computes the gradient of each text's loss: the mean over the text's counting tokens, or its label's. A text without a
/// counting token has gradient zero. What `sink` sees depends on the micro-batches only in how it is cut.
pub fn per_text(
    session: &Session<'_>,
    encoded: &Encoded,
    texts: &[usize],
    goal: Goal<'_>,
    plan: Plan,
    sink: &mut OnGradients<'_>,
) -> Result<(), TrainerError> {
    for (texts, goal) in micro_batches(texts, goal, plan) {
        let batch = Batch::new(encoded, texts, session.device())?;
        let part = match goal {
            Goal::Labels(labels) => Part::Labels { labels, share: 1.0 },
            Goal::Tokens => {
                let mut shares = Vec::new();
                for &text in texts {
                    let count = Foretold::count(encoded, text) as usize;
                    shares.resize(shares.len() + count, 1.0 / count.max(1) as f32);
                }
                Part::Tokens { foretold: Foretold::new(encoded, texts), shares, chunk: plan.chunk }
            }
        };
        let own = session.per_text(&batch)?;
        let leaves = own.leaves();
        let mut gradients: Vec<Tensor> = leaves.iter().map(|_| Tensor::new()).collect();
        let nothing = matches!(&part, Part::Tokens { foretold, .. } if foretold.tokens.is_empty());
        if !nothing {
            run(&own, &batch, &part, plan, &leaves, &mut gradients)?;
        }
        for (gradient, leaf) in gradients.iter_mut().zip(&leaves) {
            if !gradient.defined() {
                *gradient = Tensor::f_zeros(leaf.size(), (Kind::Float, leaf.device()))?;
            }
        }
        sink(&session.of_leaves_per_text(gradients)?)?;
    }
    Ok(())
}
