//! Every text's own gradient, exactly, with the arithmetic of one batch.
//!
//! Each text gets a copy of the trained tensors; the backward pass of the sum over texts then
//! leaves each text's gradient with its copy. Nothing in the models mixes texts, and texts are
//! worked on together only where they get as many cells in the grid ([`Batch::separate`]), which
//! goes by each text's own length. A product of one text has another kernel than those of several,
//! so a text that is left over in a plan of several is worked on twice at once. So a text's
//! gradient can depend on its neighbours only where a kernel adds by the number of rows or of texts
//! that it is given, from two on; `neighbours` finds that out by trial. In a plan of one text at a
//! time there are no neighbours.

use tch::{Kind, Tensor};

use super::objective::{LossTerms, Objective};
use super::{Plan, micro_batches, run};
use crate::batch::{Batch, CELLS};
use crate::error::TrainerError;
use crate::session::Session;
use crate::step::loss::{PredictedTokens, chunk_tokens};
use crate::text::encoded::Encoded;

/// Called with the gradients of a micro-batch: in the order of [`Session::parameters`], each
/// `[b, ...]` in f32.
pub type OnGradients<'a> = dyn FnMut(&[Tensor]) -> Result<(), TrainerError> + 'a;

/// Computes the gradient of each text's loss: the mean over the text's counting tokens, or its
/// label's. A text without a counting token has gradient zero. What `sink` sees depends on the
/// micro-batches only in how it is cut. Texts in the order of their lengths need the fewest.
///
/// # Errors
/// As of [`gradients`](super::gradients), and those of `sink`.
pub fn per_text(
    session: &Session<'_>,
    encoded: &Encoded,
    texts: &[usize],
    objective: Objective<'_>,
    plan: Plan,
    sink: &mut OnGradients<'_>,
) -> Result<(), TrainerError> {
    let of_one_width = of_one_width(encoded, texts, objective);
    for (texts, objective) in of_one_width.flat_map(|(texts, objective)| micro_batches(texts, objective, plan)) {
        let is_paired = texts.len() == 1 && plan.micro_batch != 1;
        let copies = if is_paired { 2 } else { 1 };
        let texts = texts.repeat(copies);
        let batch = Batch::separate(encoded, &texts, session.device())?;
        let labels = match objective {
            Objective::Labels(labels) => labels.repeat(copies),
            Objective::Tokens => Vec::new(),
        };
        let terms = match objective {
            Objective::Labels(_) => LossTerms::Labels { labels: &labels, share: 1.0 },
            Objective::Tokens => tokens(session, encoded, &texts, &batch, plan)?,
        };
        let own = session.per_text(&batch)?;
        let leaves = own.leaves();
        let mut gradients: Vec<Tensor> = leaves.iter().map(|_| Tensor::new()).collect();
        let nothing = matches!(&terms, LossTerms::Tokens { predicted, .. } if predicted.tokens.is_empty());
        if !nothing {
            run(&own, &batch, &terms, plan, &leaves, &mut gradients)?;
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

/// The counting tokens of a micro-batch, each with its text's share. They are filled up to a
/// multiple of [`CELLS`] by tokens without a share, and so is every chunk over the vocabulary: a
/// product's last rows may be added in another way.
fn tokens<'d>(
    session: &Session<'_>,
    encoded: &Encoded,
    texts: &[usize],
    batch: &Batch,
    plan: Plan,
) -> Result<LossTerms<'d>, TrainerError> {
    let mut predicted = PredictedTokens::in_rows(encoded, texts, batch.extents().iter().copied());
    let mut shares = Vec::with_capacity(predicted.tokens.len());
    for &text in texts {
        let count = PredictedTokens::count(encoded, text) as usize;
        shares.resize(shares.len() + count, 1.0 / count.max(1) as f32);
    }
    let filled = shares.len().next_multiple_of(CELLS);
    shares.resize(filled, 0.0);
    predicted.rows.resize(filled, 0);
    predicted.tokens.resize(filled, 0);
    let chunk = match plan.chunk {
        0 => chunk_tokens(session.vocabulary()?.size()?.0) as usize,
        chunk => chunk,
    };
    let chunk = (chunk / CELLS).max(1) * CELLS;
    Ok(LossTerms::Tokens { predicted, shares, chunk })
}

/// Neighbours of one width, and what they are trained towards.
fn of_one_width<'t>(
    encoded: &'t Encoded,
    texts: &'t [usize],
    objective: Objective<'t>,
) -> impl Iterator<Item = (&'t [usize], Objective<'t>)> {
    let width = move |text: usize| Batch::width(encoded.text(text).len());
    let mut first = 0;
    texts.chunk_by(move |left, right| width(*left) == width(*right)).map(move |part| {
        let places = first..first + part.len();
        first = places.end;
        match objective {
            Objective::Labels(labels) => (part, Objective::Labels(&labels[places])),
            Objective::Tokens => (part, Objective::Tokens),
        }
    })
}
