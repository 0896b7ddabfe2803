//! Every text's own gradient, exactly, with the arithmetic of one batch.
//!
//! Each text gets a copy of the trained tensors; the backward pass of the sum over texts then leaves each text's gradient
//! with its copy. Nothing in the models mixes texts, and texts are worked on together only where they get as many cells
//! in the grid ([`Batch::separate`]), which goes by each text's own length. A product of one text has another kernel than
//! those of several, so a text that is left over in a plan of several is worked on twice at once. So a text's gradient
//! can depend on its neighbours only where a kernel adds by the number of rows or of texts that it is given, from two
//! on; `neighbours` finds that out by trial. In a plan of one text at a time there are no neighbours.

use tch::{Kind, Tensor};

use super::objective::Part;
use super::{Goal, Plan, micro_batches, run};
use crate::batch::{Batch, CELLS};
use crate::error::TrainerError;
use crate::session::Session;
use crate::step::loss::{Foretold, chunk_tokens};
use crate::text::encoded::Encoded;

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
        let is_paired = texts.len() == 1 && plan.micro_batch != 1;
        let copies = if is_paired { 2 } else { 1 };
        let texts = texts.repeat(copies);
        let batch = Batch::separate(encoded, &texts, session.device())?;
        let labels = match goal {
            Goal::Labels(labels) => labels.repeat(copies),
            Goal::Tokens => Vec::new(),
        };
        let part = match goal {
            Goal::Labels(_) => Part::Labels { labels: &labels, share: 1.0 },
            Goal::Tokens => tokens(session, encoded, &texts, &batch, plan)?,
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
            if is_paired {
                *gradient = gradient.f_narrow(0, 0, 1)?;
            }
        }
        sink(&session.of_leaves_per_text(gradients)?)?;
    }
    Ok(())
}

/// The counting tokens of a micro-batch, each with its text's share. They are filled up to a multiple of [`CELLS`] by
/// tokens without a share, and so is every chunk over the vocabulary: a product's last rows may be added in another way.
fn tokens<'d>(
    session: &Session<'_>,
    encoded: &Encoded,
    texts: &[usize],
    batch: &Batch,
    plan: Plan,
) -> Result<Part<'d>, TrainerError> {
    let mut foretold = Foretold::in_rows(encoded, texts, batch.extents().iter().copied());
    let mut shares = Vec::with_capacity(foretold.tokens.len());
    for &text in texts {
        let count = Foretold::count(encoded, text) as usize;
        shares.resize(shares.len() + count, 1.0 / count.max(1) as f32);
    }
    let filled = shares.len().next_multiple_of(CELLS);
    shares.resize(filled, 0.0);
    foretold.rows.resize(filled, 0);
    foretold.tokens.resize(filled, 0);
    let chunk = match plan.chunk {
        0 => chunk_tokens(session.vocabulary()?.size()?.0) as usize,
        chunk => chunk,
    };
    let chunk = (chunk / CELLS).max(1) * CELLS;
    Ok(Part::Tokens { foretold, shares, chunk })
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
