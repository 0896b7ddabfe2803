//! What a model makes of texts, without gradients; and the logits of a classifier.

use tch::Tensor;

use super::Session;
use crate::batch::{Batch, Encoded};
use crate::error::TrainerError;
use crate::step::loss::{self, PredictedTokens};

/// Token cells of a batch without gradients: large enough to keep the cores busy, small enough for
/// their caches.
const EVALUATION_TOKENS: usize = 2048;

/// What a language model makes of one text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TextLoss {
    /// Sum of -log p over the counting tokens, nats.
    pub loss: f64,
    /// Counting tokens.
    pub tokens: u64,
    /// Those of them that are the model's likeliest.
    pub hits: u64,
}

impl Session<'_> {
    /// Words in a language model's vocabulary.
    ///
    /// # Errors
    /// It is no language model.
    pub fn words(&self) -> Result<usize, TrainerError> {
        Ok(self.vocabulary()?.size()?.0 as usize)
    }

    /// Logits `[texts, labels]` of the texts with these indices, in this order; of classifiers.
    ///
    /// # Errors
    /// It is no classifier.
    pub fn logits(&self, encoded: &Encoded, texts: &[usize]) -> Result<Tensor, TrainerError> {
        let batch = Batch::new(encoded, texts, self.device)?;
        self.head()?.logits(&self.model.forward(&batch, &self.adapters)?, &batch)
    }

    /// Logits of the first `count` texts without gradients, `[count, labels]` row by row. `tick` is
    /// called after every batch with the texts done so far.
    ///
    /// # Errors
    /// It is no classifier, or `tick` failed.
    pub fn predict(
        &self,
        encoded: &Encoded,
        count: usize,
        tick: &mut dyn FnMut(usize) -> Result<(), TrainerError>,
    ) -> Result<Vec<Vec<f32>>, TrainerError> {
        let _no_grad = tch::no_grad_guard();
        let mut rows = vec![Vec::new(); count];
        let mut done = 0;
        for texts in encoded.by_length(count, EVALUATION_TOKENS) {
            let logits = Vec::<Vec<f32>>::try_from(&self.logits(encoded, &texts)?)?;
            done += texts.len();
            for (index, logits) in texts.into_iter().zip(logits) {
                rows[index] = logits;
            }
            tick(done)?;
        }
        Ok(rows)
    }

    /// What the language model makes of the first `count` texts, without gradients. `tick` as of
    /// [`Session::predict`].
    ///
    /// # Errors
    /// It is no language model, or `tick` failed.
    pub fn token_losses(
        &self,
        encoded: &Encoded,
        count: usize,
        tick: &mut dyn FnMut(usize) -> Result<(), TrainerError>,
    ) -> Result<Vec<TextLoss>, TrainerError> {
        let _no_grad = tch::no_grad_guard();
        let vocabulary = self.vocabulary()?;
        let mut found = vec![TextLoss::default(); count];
        let mut done = 0;
        for texts in encoded.by_length(count, EVALUATION_TOKENS) {
            let predicted = PredictedTokens::new(encoded, &texts);
            if !predicted.rows.is_empty() {
                let batch = Batch::new(encoded, &texts, self.device)?;
                let mut x = self.model.embed(&batch)?;
                for number in 0..self.model.layers() {
                    x = self.model.layer(number, &x, &batch, &self.adapters, None)?;
                }
                let rows = Tensor::f_from_slice(&predicted.rows)?.f_to_device(self.device)?;
                let states = self.model.finish(&x.f_index_select(0, &rows)?)?;
                let mut losses = loss::token_losses(vocabulary, &states, &predicted.tokens, 0)?.into_iter();
                for &text in &texts {
                    let tokens = PredictedTokens::count(encoded, text);
                    for token in losses.by_ref().take(tokens as usize) {
                        found[text].loss += token.loss;
                        found[text].hits += u64::from(token.hit);
                    }
                    found[text].tokens = tokens;
                }
            }
            done += texts.len();
            tick(done)?;
        }
        Ok(found)
    }
}
