//! `exact-answer`: the model answers, and the answer is compared.
//!
//! The text is generated greedily from the prompt and read by the task's answer rule, as is the
//! reference. Accuracy = share of answers equal to the reference's; loss as of causal-lm, on the
//! reference completions.

use std::ops::ControlFlow;

use rondo_data::{Example, Split};
use rondo_proto::run_file::Task;
use rondo_trainer_api::work::OnProgress;

use super::answer::extract;
use super::causal_lm::counted;
use super::score::{LossUnit, Scores, Share};
use super::{HELD_OUT, Outcome, Ticker, Verdict};
use crate::error::TrainerError;
use crate::generate::sampling::Sampling;
use crate::generate::{Options, generate};
use crate::session::{Session, TextLoss};
use crate::text::tokens::Tokens;

/// Token cells of one batch's keys and values.
const CELLS: usize = 16 * 1024;
/// Most texts generated together.
const TEXTS: usize = 32;

pub(super) fn evaluate(
    session: &Session<'_>,
    tokens: &mut Tokens,
    task: &Task,
    part: Split<'_>,
    count: usize,
    progress: &mut OnProgress<'_>,
) -> Result<Outcome, TrainerError> {
    // Every example is read once for the loss and answered once.
    let mut ticker = Ticker::new(2 * count, progress);
    let mut scores = Scores::default();
    let mut verdicts = Vec::with_capacity(count);
    for rows in tokens.rows(part, task)?.chunks(count) {
        let rows = rows?;
        let losses = session.token_losses(&rows.encoded, rows.encoded.len(), &mut |done| ticker.show(done))?;
        ticker.advance(rows.examples.len());
        let texts = answers(session, tokens, task, &rows.examples, &mut ticker)?;
        for ((example, loss), generated) in rows.examples.into_iter().zip(losses).zip(texts) {
            let verdict = verdict_of(&example, &loss, generated, task);
            let right = u64::from(verdict.right == Some(true));
            scores.add(example.group.as_deref(), Share { loss: loss.loss, units: loss.tokens, right, tries: 1 });
            verdicts.push((example, verdict));
        }
    }
    if verdicts.iter().all(|(_, verdict)| verdict.expected.is_none()) {
        return Err(TrainerError::NoAnswer { what: HELD_OUT });
    }
    let evaluation = counted(scores.evaluation(LossUnit::Token))?;
    Ok(Outcome { evaluation, verdicts })
}

/// What the model says to each example; `None` where the prompt leaves no room for an answer.
fn answers(
    session: &Session<'_>,
    tokens: &Tokens,
    task: &Task,
    examples: &[Example],
    ticker: &mut Ticker<'_, '_>,
) -> Result<Vec<Option<String>>, TrainerError> {
    let options =
        Options { max_new_tokens: task.max_new_tokens, sampling: Sampling::greedy(), stops: tokens.ends().to_vec() };
    let prompts: Vec<Vec<i64>> =
        examples.iter().map(|example| tokens.prompt(example, task)).collect::<Result<_, _>>()?;
    let mut texts = vec![None; examples.len()];
    let limit = session.model().max_positions();
    let (fitting, filled): (Vec<usize>, Vec<usize>) =
        (0..prompts.len()).partition(|&index| (1..limit).contains(&prompts[index].len()));
    ticker.advance(filled.len());
    for batch in batches(&prompts, fitting, task.max_new_tokens) {
        let ids: Vec<&[i64]> = batch.iter().map(|&index| prompts[index].as_slice()).collect();
        let mut stopped = None;
        // Long answers take their time: the caller hears of every step, not of every batch only.
        let generated = generate(session, &ids, &options, &mut |_, _| match ticker.show(0) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                stopped = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = stopped {
            return Err(error);
        }
        ticker.advance(batch.len());
        for (&index, generated) in batch.iter().zip(&generated) {
            texts[index] = Some(tokens.text(&generated.ids)?);
        }
        ticker.show(0)?;
    }
    Ok(texts)
}

/// Prompts of like length together, so that little of a batch is idle.
fn batches(prompts: &[Vec<i64>], mut order: Vec<usize>, new: usize) -> Vec<Vec<usize>> {
    order.sort_by_key(|&index| (prompts[index].len(), index));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for index in order {
        let cells = prompts[index].len() + new;
        match batches.last_mut() {
            Some(batch) if batch.len() < TEXTS && (batch.len() + 1) * cells <= CELLS => batch.push(index),
            _ => batches.push(vec![index]),
        }
    }
    batches
}

fn verdict_of(example: &Example, loss: &TextLoss, generated: Option<String>, task: &Task) -> Verdict {
    let expected = extract(task.answer, example.reference());
    let answer = generated.as_deref().and_then(|text| extract(task.answer, text));
    Verdict {
        loss: (loss.tokens > 0).then(|| loss.loss / loss.tokens as f64),
        tokens: loss.tokens,
        right: Some(expected.is_some() && answer == expected),
        generated,
        answer,
        expected,
        ..Verdict::default()
    }
}
