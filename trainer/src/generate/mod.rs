//! Text out of a language model, token by token, with keys and values of earlier tokens kept.
//!
//! Many prompts run as one batch, each at its own positions. A token attends to the tokens of its
//! own text that stand before it and to nothing else, so a batch says what each prompt says alone.
//! Finished texts leave the batch.

pub mod sampling;
mod stream_decoder;

use std::ops::ControlFlow;

use tch::{Device, Tensor};

use crate::batch::{Batch, Encoded};
use crate::error::TrainerError;
use crate::generate::sampling::Sampling;
use crate::models::LayerCache;
use crate::session::Session;
use crate::step::loss::vocabulary_logits;

pub use stream_decoder::StreamDecoder;

/// How to go on from a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Most tokens per text.
    pub max_new_tokens: usize,
    /// How each is drawn.
    pub sampling: Sampling,
    /// Tokens that end a text: end of text, end of turn.
    pub stops: Vec<i64>,
}

/// What came out of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The new tokens, without the one that ended the text.
    pub ids: Vec<i64>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FinishReason {
    /// The model said that it is done.
    Stop,
    /// [`Options::max_new_tokens`] are reached.
    Length,
    /// The model has no further positions.
    Context,
    /// The caller asked to stop.
    Interrupted,
}

/// Called with the number of the text and each new token; `Break` ends all texts.
pub type OnToken<'a> = dyn FnMut(usize, i64) -> ControlFlow<()> + 'a;

/// Goes on from each prompt (at least one token each); the results are in the order of the prompts.
///
/// # Errors
/// An empty prompt, a prompt that fills the model's context, logits without a number.
pub fn generate(
    session: &Session<'_>,
    prompts: &[&[i64]],
    options: &Options,
    on_token: &mut OnToken<'_>,
) -> Result<Vec<Generated>, TrainerError> {
    let mut caches = fresh(session);
    let texts = prompts.iter().enumerate().map(|(number, prompt)| (number, 0, *prompt));
    run(session, &mut caches, texts.collect(), options, on_token)
}

/// A conversation's keys and values, so that each turn runs over its new tokens alone.
#[derive(Default)]
pub struct Memory {
    caches: Vec<LayerCache>,
    /// The tokens whose keys and values are held.
    ids: Vec<i64>,
}

impl Memory {
    /// Goes on from a prompt; what it has in common with the last one and its answer is not
    /// computed again.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn reply(
        &mut self,
        session: &Session<'_>,
        prompt: &[i64],
        options: &Options,
        on_token: &mut OnToken<'_>,
    ) -> Result<Generated, TrainerError> {
        let same = self.ids.iter().zip(prompt).take_while(|(held, asked)| held == asked).count();
        // The last token is always run: its state says what follows.
        let held = same.min(prompt.len().saturating_sub(1));
        let mut caches = std::mem::take(&mut self.caches);
        if caches.is_empty() {
            caches = fresh(session);
        }
        self.ids.clear(); // if this fails, the next turn starts from nothing
        let texts = vec![(0, held, prompt)];
        let generated = run(session, &mut caches, texts, options, on_token)?.swap_remove(0);
        // The last new token may not have been run.
        let known = generated.ids.len().saturating_sub(1);
        self.ids = [prompt, &generated.ids[..known]].concat();
        self.caches = caches;
        Ok(generated)
    }
}

fn fresh(session: &Session<'_>) -> Vec<LayerCache> {
    (0..session.model().layers()).map(|_| LayerCache::default()).collect()
}

/// `texts`: number, tokens whose keys and values are held already, whole prompt.
fn run(
    session: &Session<'_>,
    caches: &mut [LayerCache],
    mut texts: Vec<(usize, usize, &[i64])>,
    options: &Options,
    on_token: &mut OnToken<'_>,
) -> Result<Vec<Generated>, TrainerError> {
    let _no_grad = tch::no_grad_guard();
    let limit = session.model().max_positions();
    let mut input = Encoded::new();
    for (_, held, prompt) in &texts {
        if prompt.is_empty() || prompt.len() >= limit {
            return Err(TrainerError::Prompt { tokens: prompt.len(), limit });
        }
        input.push(prompt[*held..].iter().copied());
    }
    let mut all = vec![Generated { ids: Vec::new(), finish_reason: FinishReason::Length }; texts.len()];
    if options.max_new_tokens == 0 {
        return Ok(all);
    }
    let mut offsets: Vec<i64> = texts.iter().map(|(_, held, _)| *held as i64).collect();
    while !texts.is_empty() {
        let logits = next_logits(session, caches, &input, &offsets)?;
        for (row, offset) in offsets.iter_mut().enumerate() {
            *offset += input.text(row).len() as i64;
        }
        let mut staying = Vec::with_capacity(texts.len());
        let mut next = Encoded::new();
        for (row, logits) in logits.iter().enumerate() {
            let number = texts[row].0;
            let position = offsets[row] as usize;
            let text = &mut all[number];
            let Some(id) = options.sampling.pick(logits, number as u64, position as u64) else {
                return Err(TrainerError::NotFinite { step: position as u32, what: "every logit".into() });
            };
            let id = id as i64;
            if options.stops.contains(&id) {
                text.finish_reason = FinishReason::Stop;
                continue;
            }
            text.ids.push(id);
            if on_token(number, id).is_break() {
                texts.iter().skip(row).for_each(|(number, ..)| all[*number].finish_reason = FinishReason::Interrupted);
                staying.iter().for_each(|&row: &usize| all[texts[row].0].finish_reason = FinishReason::Interrupted);
                return Ok(all);
            }
            if text.ids.len() == options.max_new_tokens {
                text.finish_reason = FinishReason::Length;
            } else if position + 1 >= limit {
                text.finish_reason = FinishReason::Context;
            } else {
                staying.push(row);
                next.push([id]);
            }
        }
        if staying.len() < texts.len() && !staying.is_empty() {
            let rows: Vec<i64> = staying.iter().map(|&row| row as i64).collect();
            caches.iter_mut().try_for_each(|cache| cache.select(&rows))?;
        }
        texts = staying.iter().map(|&row| texts[row]).collect();
        offsets = staying.iter().map(|&row| offsets[row]).collect();
        input = next;
    }
    Ok(all)
}

/// Logits behind the last token of each text, `[texts][vocabulary]`.
fn next_logits(
    session: &Session<'_>,
    caches: &mut [LayerCache],
    input: &Encoded,
    offsets: &[i64],
) -> Result<Vec<Vec<f32>>, TrainerError> {
    let model = session.model();
    let device = session.device();
    let vocabulary = model.vocabulary().ok_or(TrainerError::NoVocabulary)?;
    let texts: Vec<usize> = (0..input.len()).collect();
    let batch = Batch::following(input, &texts, offsets, device)?;
    let mut x = model.embed(&batch)?;
    for (number, cache) in caches.iter_mut().enumerate() {
        x = model.layer(number, &x, &batch, session.adapters(), Some(cache))?;
    }
    let mut end = -1;
    let lasts: Vec<i64> = texts
        .iter()
        .map(|&text| {
            end += input.text(text).len() as i64;
            end
        })
        .collect();
    let lasts = Tensor::f_from_slice(&lasts)?.f_to_device(device)?;
    let states = model.finish(&x.f_index_select(0, &lasts)?)?;
    let logits = vocabulary_logits(vocabulary, &states)?;
    Ok(Vec::<Vec<f32>>::try_from(&logits.f_to_device(Device::Cpu)?)?)
}
