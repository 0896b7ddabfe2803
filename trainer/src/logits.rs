//! All logits of a few texts, for comparisons with other programs.

use tch::Tensor;

use crate::batch::{Batch, Encoded};
use crate::error::TrainerError;
use crate::session::{Session, to_plain};
use crate::step::loss::vocabulary_logits;

/// Tokens of one batch, padding included.
const BATCH_TOKENS: usize = 512;

/// Logits of every token of every text, without gradients: `[tokens, vocabulary]` each, in the
/// order of the texts. Row j is what the model expects after token j.
///
/// # Errors
/// No language model; whatever libtorch refuses.
pub fn of_texts(session: &Session<'_>, encoded: &Encoded) -> Result<Vec<rondo_methods::Tensor>, TrainerError> {
    let _no_grad = tch::no_grad_guard();
    let vocabulary = session.vocabulary()?;
    let mut found = vec![rondo_methods::Tensor::zeros(&[0, 0]); encoded.len()];
    for texts in encoded.by_length(encoded.len(), BATCH_TOKENS) {
        let batch = Batch::new(encoded, &texts, session.device())?;
        // Already finished states, `[all tokens, hidden]`.
        let states = session.model().forward(&batch, session.adapters())?;
        let mut first = 0;
        for text in texts {
            let length = encoded.text(text).len() as i64;
            let own: Tensor = states.f_narrow(0, first, length)?;
            found[text] = to_plain(&vocabulary_logits(vocabulary, &own)?)?;
            first += length;
        }
    }
    Ok(found)
}
