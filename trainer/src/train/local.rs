//! One round's local training.

use std::ops::ControlFlow;
use std::time::Instant;

use rondo_data::batches::Batches;
use rondo_methods::{Kind, TensorSet, change};
use rondo_trainer_api::work::{LocalUpdate, OnProgress, Progress, Protection, Work};

use crate::error::TrainerError;
use crate::session::Session;
use crate::step::{self, Gradients, Objective, Plan};
use crate::text::rows::{EncodedRows, Rows};
use crate::train::dp_sgd::DpSgd;
use crate::train::optim::{AdamW, AdamWConfig, Proximal};

/// The reported training loss is the mean over so many last steps.
const LOSS_STEPS: usize = 10;

/// Loss and gradients of some rows: of their tokens, or of their labels.
pub(super) fn gradients(
    session: &Session<'_>,
    work: &Work,
    rows: &EncodedRows,
    plan: Plan,
) -> Result<Gradients, TrainerError> {
    let labels = rows.labels();
    let objective = Objective::of_task(work.run.task.kind, &labels);
    step::gradients(session, &rows.encoded, &rows.indices(), objective, plan)
}

/// The order in which a client sees its rows: endless passes, the same in every round, of which
/// round `n` takes the part behind the rounds before it. So a few short rounds still see as many
/// different rows as they can. A language model's batches hold rows of like `lengths`.
pub(super) fn batches<'l>(work: &Work, lengths: &'l [u32]) -> Box<dyn Iterator<Item = Vec<usize>> + 'l> {
    let train = &work.run.train;
    let seed = format!("{}/{}/train", train.seed, work.client);
    let done = work.round.saturating_sub(1) as usize * train.local_steps as usize;
    let batch = train.batch as usize;
    match work.run.task.kind.needs_language_model() {
        true => Box::new(Batches::bucketed(lengths, batch, &seed).skip(done)),
        false => Box::new(Batches::new(lengths.len(), batch, &seed).skip(done)),
    }
}

/// Trains the session's trained tensors for the run's local steps with AdamW. The update holds what
/// the job uploads.
///
/// # Errors
/// No usable row, a loss that is not finite, an interruption. With privacy
/// the first two give an update without a change.
pub fn train(
    session: &Session<'_>,
    work: &Work,
    rows: &Rows<'_>,
    plan: Plan,
    progress: &mut OnProgress<'_>,
) -> Result<LocalUpdate, TrainerError> {
    if rows.is_empty() {
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
    let lengths = rows.lengths();
    let mut order = batches(work, &lengths);
    let is_public = work.protection == Protection::None;
    let mut private = match &work.protection {
        Protection::Examples(plan) => Some(DpSgd::new(session, plan)?),
        Protection::None | Protection::WholeChange { .. } => None,
    };
    for step in 1..=steps {
        let mut found = match &mut private {
            Some(private) => private.step(session, work, rows, plan)?,
            None => match rows.draw(&mut order) {
                // Which rows are of no use is private, too.
                Err(error @ TrainerError::NoExamples { .. }) if !is_public => return unchanged(work, &error),
                drawn => gradients(session, work, &drawn?, plan)?,
            },
        };
        if !found.loss.is_finite() {
            let diverged = TrainerError::NotFinite { step, what: "the loss".into() };
            return if is_public { Err(diverged) } else { unchanged(work, &diverged) };
        }
        // Without a token that counts there is nothing to learn from, and no step is taken.
        if found.units > 0 {
            proximal.add_to(&mut found.tensors)?;
            optimiser.step(&found.tensors)?;
            losses.push(found.loss);
        }
        let loss = if is_public { found.loss } else { 0.0 };
        if progress(Progress { step, steps, loss }) == ControlFlow::Break(()) {
            return Err(TrainerError::Interrupted);
        }
    }

    let tensors = session.trained_values()?;
    if let Some((name, _)) = tensors.iter().find(|(_, tensor)| !tensor.data.iter().all(|value| value.is_finite())) {
        let diverged = TrainerError::NotFinite { step: steps, what: format!("tensor {name:?}") };
        return if is_public { Err(diverged) } else { unchanged(work, &diverged) };
    }
    let last = &losses[losses.len().saturating_sub(LOSS_STEPS)..];
    let mut tensors = upload(work, Kind::Train, tensors)?;
    let seconds = started.elapsed().as_secs_f64();
    // How long it took depends on the data, too: with privacy it stays in this log.
    tracing::info!(seconds, protection = ?work.protection, "the last step is done");
    match work.protection {
        Protection::None => Ok(LocalUpdate {
            tensors,
            examples: usable(rows),
            train_loss: last.iter().sum::<f64>() / last.len().max(1) as f64,
            seconds,
            before: None,
        }),
        Protection::Examples(_) => Ok(tensors_alone(tensors)),
        Protection::WholeChange { clip } => {
            change::clip(&work.state.tensors, &mut tensors, clip);
            Ok(tensors_alone(tensors))
        }
    }
}

/// The update of a protected training that diverged, or found no usable row: no change. Even that
/// depends on the data, so it is an update like any other and is charged as such.
fn unchanged(work: &Work, why: &TrainerError) -> Result<LocalUpdate, TrainerError> {
    tracing::warn!(%why, "an update without a change is sent");
    Ok(tensors_alone(upload(work, Kind::Train, TensorSet::new())?))
}

/// An update that says nothing but its tensors.
pub(super) fn tensors_alone(tensors: TensorSet) -> LocalUpdate {
    LocalUpdate { tensors, examples: 0, train_loss: 0.0, seconds: 0.0, before: None }
}

/// Rows by which an update weighs.
pub(super) fn usable(rows: &Rows<'_>) -> u64 {
    (rows.len() - rows.skipped()) as u64
}

/// What the job uploads, out of the trained tensors. A tensor may go up without having been
/// trained; it goes as received.
pub(crate) fn upload(work: &Work, kind: Kind, mut trained: TensorSet) -> Result<TensorSet, TrainerError> {
    let mut upload = TensorSet::new();
    for entry in work.job.upload_manifest(kind, work.instance()) {
        let tensor = trained.remove(&entry.name).or_else(|| work.state.tensors.get(&entry.name).cloned());
        let Some(tensor) = tensor else {
            let problem = "the upload names it, but the adapter does not have it".to_owned();
            return Err(TrainerError::Tensor { name: entry.name, problem });
        };
        upload.insert(entry.name, tensor);
    }
    Ok(upload)
}
