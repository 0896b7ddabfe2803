//! What is measured, by the kind of task: one file each.
//!
//! Every task goes through its examples in parts, so that a data set larger than memory can be
//! measured, and makes one [`Evaluation`] with its groups, and a [`Verdict`] per example for people
//! who look closer.

pub mod answer;
pub mod causal_lm;
pub mod classification;
pub mod exact_answer;
pub mod multiple_choice;
pub mod score;

use std::ops::ControlFlow;

use rondo_data::{Example, Split};
use rondo_proto::run_file::{Task, TaskKind};
use rondo_proto::v1::Evaluation;
use rondo_trainer_api::work::{OnProgress, Progress};

use crate::error::TrainerError;
use crate::session::Session;
use crate::text::tokens::Tokens;

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The figures.
    pub evaluation: Evaluation,
    /// One per example, in the order of the data set; rows that the data set's policy skips are
    /// left out.
    pub verdicts: Vec<(Example, Verdict)>,
}

/// What the model made of one example.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// -log p in nats: of the label, else the mean over the tokens that count. `None` where no
    /// token counts.
    pub loss: Option<f64>,
    /// Tokens that count; 0 for classification.
    pub tokens: u64,
    /// Whether the label, the option or the answer was right; `None` for causal-lm.
    pub right: Option<bool>,
    /// Share of the counting tokens that the model holds likeliest; of causal-lm.
    pub next_token_accuracy: Option<f64>,
    /// Index of the label or option chosen.
    pub chosen: Option<usize>,
    /// Index of the right one.
    pub wanted: Option<usize>,
    /// Logits of the labels, or scores of the options.
    pub scores: Vec<f64>,
    /// The text generated.
    pub generated: Option<String>,
    /// The answer in it.
    pub answer: Option<String>,
    /// The answer in the reference.
    pub expected: Option<String>,
}

/// Measures the session's model on the first `limit` examples (`None` = all).
///
/// # Errors
/// No examples; examples of which nothing counts; `progress` broke off; whatever the model or the
/// data refuse.
pub fn evaluate(
    session: &Session<'_>,
    tokens: &mut Tokens,
    task: &Task,
    part: Split<'_>,
    limit: Option<usize>,
    progress: &mut OnProgress<'_>,
) -> Result<Outcome, TrainerError> {
    let count = limit.unwrap_or(usize::MAX).min(part.len());
    if count == 0 {
        return Err(TrainerError::NoExamples { what: HELD_OUT });
    }
    match task.kind {
        TaskKind::Classification => classification::evaluate(session, tokens, task, part, count, progress),
        TaskKind::CausalLm => causal_lm::evaluate(session, tokens, task, part, count, progress),
        TaskKind::MultipleChoice => multiple_choice::evaluate(session, tokens, task, part, count, progress),
        TaskKind::ExactAnswer => exact_answer::evaluate(session, tokens, task, part, count, progress),
    }
}

/// What the examples of an evaluation are called in errors.
const HELD_OUT: &str = "the held-out part";

/// Turns a count of what is done into progress, and a `Break` into an error.
struct Ticker<'p, 'f> {
    progress: &'p mut OnProgress<'f>,
    done: usize,
    steps: usize,
}

impl<'p, 'f> Ticker<'p, 'f> {
    fn new(steps: usize, progress: &'p mut OnProgress<'f>) -> Self {
        Self { progress, done: 0, steps }
    }

    /// `more` beyond what is done for good.
    fn show(&mut self, more: usize) -> Result<(), TrainerError> {
        let step = (self.done + more).min(self.steps) as u32;
        match (self.progress)(Progress { step, steps: self.steps as u32, loss: 0.0 }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(TrainerError::Interrupted),
        }
    }

    fn advance(&mut self, by: usize) {
        self.done += by;
    }
}
