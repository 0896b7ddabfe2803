//! Every text's own gradient, exactly, with the arithmetic of one batch.
//!
//! Each text gets a copy of the trained tensors; the backward pass of the sum over texts then leaves each text's gradient
//! with its copy. Nothing in the models mixes texts, and texts are worked on together only where they get as many cells
//! in the grid ([`Batch::separate`]), which goes by each text's own length. So a text's gradient can depend on its
//! neighbours only where a kernel adds by the number of rows it is given; `neighbours` finds that out by trial.

use tch::{Kind, Tensor};

use super::objective::Part;
use super::{Goal, Plan, micro_batches, run};
use crate::trainer::batch::{Batch, Encoded};
use crate::trainer::error::TrainerError;
use crate::trainer::loss::Foretold;
use crate::trainer::session::Session;

/// Called with the gradients of a micro-batch: in the order of [`Session::parameters`], each `[b, ...]` in f32.
pub type OnGradients<'a> = dyn FnMut(&[Tensor]) -> Result<(), TrainerError> + 'a;

/// Computes the gradient of each text's loss: the mean over the text's counting tokens, or its label's. A text without a
/// counting token has gradient zero. What `sink` sees depends on the micro-batches only in how it is cut. Texts in the
/// order of their lengths need the fewest.
pub fn per_text(
    session: &Session<'_>,
    encoded: &Encoded,
    texts: &[usize],
    goal: Goal<'_>,
    plan: Plan,
    sink: &mut OnGradients<'_>,
) -> Result<(), TrainerError> {
    let of_one_width = of_one_width(encoded, texts, goal);
    for (texts, goal) in of_one_width.flat_map(|(texts, goal)| micro_batches(texts, goal, plan)) {
        let batch = Batch::separate(encoded, texts, session.device())?;
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

/// Neighbours of one width, and what they are trained towards.
fn of_one_width<'t>(
    encoded: &'t Encoded,
    texts: &'t [usize],
    goal: Goal<'t>,
) -> impl Iterator<Item = (&'t [usize], Goal<'t>)> {
    let width = move |text: usize| Batch::width(encoded.text(text).len());
    let mut first = 0;
    texts.chunk_by(move |left, right| width(*left) == width(*right)).map(move |part| {
        let places = first..first + part.len();
        first = places.end;
        match goal {
            Goal::Labels(labels) => (part, Goal::Labels(&labels[places])),
            Goal::Tokens => (part, Goal::Tokens),
        }
    })
}
