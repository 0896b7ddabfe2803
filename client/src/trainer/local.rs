//! One round's local training.

use std::ops::ControlFlow;
use std::time::Instant;

use rondo_methods::{Kind, TensorSet};
use rondo_proto::v1::Evaluation;

use super::batch::Encoded;
use super::classify::Score;
use super::error::TrainerError;
use super::loss::Foretold;
use super::optim::{AdamW, AdamWConfig, Proximal};
use super::session::{Session, TextLoss};
use super::step::{self, Goal, Gradients, Plan};
use crate::data::Example;
use crate::data::batches::Batches;
use crate::work::{LocalUpdate, OnProgress, Progress, Work};

/// The reported training loss is the mean over so many last steps.
const LOSS_STEPS: usize = 10;

/// Examples and their token ids, in the same order.
#[derive(Clone, Copy)]
pub struct Examples<'d> {
    /// Texts and labels.
    pub examples: &'d [Example],
    /// The texts' token ids.
    pub encoded: &'d Encoded,
    /// True when the texts' tokens are foretold, false when their labels are.
    pub language: bool,
}

impl Examples<'_> {
    /// Loss and gradients of the examples with these indices.
    pub(super) fn gradients(
        &self,
        session: &Session<'_>,
        texts: &[usize],
        plan: Plan,
    ) -> Result<Gradients, TrainerError> {
        let labels: Vec<i64> = texts.iter().map(|&index| i64::from(self.examples[index].label())).collect();
        let goal = if self.language { Goal::Tokens } else { Goal::Labels(&labels) };
        step::gradients(session, self.encoded, texts, goal, plan)
    }

    /// What a mean over these examples divides by: counting tokens, or examples.
    pub(super) fn units(&self, texts: &[usize]) -> u64 {
        match self.language {
            true => texts.iter().map(|&text| Foretold::count(self.encoded, text)).sum(),
            false => texts.len() as u64,
        }
    }
}

/// The order in which a client sees its examples: endless passes, the same in every round, of which round `n` takes the
/// part behind the rounds before it. So a few short rounds still see as many different examples as they can.
pub(super) fn batches(work: &Work, examples: usize) -> impl Iterator<Item = Vec<usize>> {
    let train = &work.run.train;
    let seed = format!("{}/{}/train", train.seed, work.client);
    let done = work.round.saturating_sub(1) as usize * train.local_steps as usize;
    Batches::new(examples, train.batch as usize, &seed).skip(done)
}

/// Trains the session's trained tensors for the run's local steps with AdamW. The update holds what the job uploads.
pub fn train(
    session: &Session<'_>,
    work: &Work,
    data: Examples<'_>,
    plan: Plan,
    progress: &mut OnProgress<'_>,
) -> Result<LocalUpdate, TrainerError> {
    if data.examples.is_empty() {
        return Err(TrainerError::NoExamples { what: "the training part" });
    }
    let started = Instant::now();
    let train = &work.run.train;
    let config = AdamWConfig {
        lr: train.lr,
        weight_decay: train.weight_decay,
        max_grad_norm: train.max_grad_norm,
        ..AdamWConfig::default()
    };
    let proximal = Proximal::new(train.proximal, session)?;
    let mut optimiser = AdamW::new(config, session.parameters()?)?;
    let steps = train.local_steps;
    let mut losses = Vec::with_capacity(steps as usize);
    for (step, batch) in (1..=steps).zip(batches(work, data.examples.len())) {
        let mut found = data.gradients(session, &batch, plan)?;
        if !found.loss.is_finite() {
            return Err(TrainerError::NotFinite { step, what: "the loss".into() });
        }
        // Without a token that counts there is nothing to learn from, and no step is taken.
        if found.units > 0 {
            proximal.add_to(&mut found.tensors)?;
            optimiser.step(&found.tensors)?;
            losses.push(found.loss);
        }
        if progress(Progress { step, steps, loss: found.loss }) == ControlFlow::Break(()) {
            return Err(TrainerError::Interrupted);
        }
    }

    let tensors = session.trained_values()?;
    for (name, tensor) in &tensors {
        if !tensor.data.iter().all(|value| value.is_finite()) {
            return Err(TrainerError::NotFinite { step: steps, what: format!("tensor {name:?}") });
        }
    }
    let last = &losses[losses.len().saturating_sub(LOSS_STEPS)..];
    Ok(LocalUpdate {
        tensors: upload(work, Kind::Train, tensors)?,
        examples: data.examples.len() as u64,
        train_loss: last.iter().sum::<f64>() / last.len().max(1) as f64,
        seconds: started.elapsed().as_secs_f64(),
        before: None,
    })
}

/// What the job uploads, out of the trained tensors. A tensor may go up without having been trained; it goes as received.
pub(super) fn upload(work: &Work, kind: Kind, mut trained: TensorSet) -> Result<TensorSet, TrainerError> {
    let mut upload = TensorSet::new();
    for entry in work.job.upload_manifest(kind, work.round, work.rank) {
        let tensor = trained.remove(&entry.name).or_else(|| work.state.tensors.get(&entry.name).cloned());
        let Some(tensor) = tensor else {
            let problem = "the upload names it, but the adapter does not have it".to_owned();
            return Err(TrainerError::Tensor { name: entry.name, problem });
        };
        upload.insert(entry.name, tensor);
    }
    Ok(upload)
}

/// Loss and accuracy on the first `limit` examples: of their labels, or of their counting tokens.
pub fn evaluate(
    session: &Session<'_>,
    data: Examples<'_>,
    limit: Option<usize>,
    progress: &mut OnProgress<'_>,
) -> Result<Evaluation, TrainerError> {
    let count = limit.unwrap_or(usize::MAX).min(data.examples.len());
    if count == 0 {
        return Err(TrainerError::NoExamples { what: "the held-out part" });
    }
    let mut tick = |done: usize| match progress(Progress { step: done as u32, steps: count as u32, loss: 0.0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(TrainerError::Interrupted),
    };
    if data.language {
        return Ok(of_tokens(&session.token_losses(data.encoded, count, &mut tick)?));
    }
    let mut score = Score::default();
    for (logits, example) in session.predict(data.encoded, count, &mut tick)?.iter().zip(data.examples) {
        score.add(logits, example.label() as usize);
    }
    Ok(score.evaluation())
}

/// Means over all counting tokens, whichever text they stand in.
fn of_tokens(texts: &[TextLoss]) -> Evaluation {
    let tokens: u64 = texts.iter().map(|text| text.tokens).sum();
    let hits: u64 = texts.iter().map(|text| text.hits).sum();
    let each = tokens.max(1) as f64;
    Evaluation {
        loss: texts.iter().map(|text| text.loss).sum::<f64>() / each,
        accuracy: hits as f64 / each,
        examples: texts.len() as u64,
        tokens,
        ..Default::default()
    }
}
