//! `causal-lm`: how well the next tokens are predicted.
//!
//! Loss = sum of -log p(token j | tokens < j) over all tokens that count, divided by their number;
//! perplexity = exp(loss); accuracy = share of these tokens that the model holds likeliest. A long
//! text weighs more than a short one.

use rondo_data::Split;
use rondo_proto::run_file::Task;
use rondo_trainer_api::work::OnProgress;

use super::score::{LossUnit, Scores, Share};
use super::{HELD_OUT, Outcome, Ticker, Verdict};
use crate::error::TrainerError;
use crate::session::{Session, TextLoss};
use crate::text::tokens::Tokens;

pub(super) fn evaluate(
    session: &Session<'_>,
    tokens: &mut Tokens,
    task: &Task,
    part: Split<'_>,
    count: usize,
    progress: &mut OnProgress<'_>,
) -> Result<Outcome, TrainerError> {
    let mut ticker = Ticker::new(count, progress);
    let mut scores = Scores::default();
    let mut verdicts = Vec::with_capacity(count);
    for rows in tokens.rows(part, task)?.chunks(count) {
        let rows = rows?;
        let losses = session.token_losses(&rows.encoded, rows.encoded.len(), &mut |done| ticker.show(done))?;
        ticker.advance(rows.examples.len());
        for (example, loss) in rows.examples.into_iter().zip(losses) {
            let TextLoss { loss, tokens, hits } = loss;
            scores.add(example.group.as_deref(), Share { loss, units: tokens, right: hits, tries: tokens });
            let mean = |sum: f64| (tokens > 0).then(|| sum / tokens as f64);
            let next_token_accuracy = mean(hits as f64);
            let verdict = Verdict { loss: mean(loss), tokens, next_token_accuracy, ..Verdict::default() };
            verdicts.push((example, verdict));
        }
    }
    let evaluation = counted(scores.evaluation(LossUnit::Token))?;
    Ok(Outcome { evaluation, verdicts })
}

/// Refuses an evaluation in which no token counts: its loss would read as a perfect 0.
pub(super) fn counted(evaluation: rondo_proto::v1::Evaluation) -> Result<rondo_proto::v1::Evaluation, TrainerError> {
    match evaluation.tokens {
        0 => Err(TrainerError::NothingCounts { what: HELD_OUT }),
        _ => Ok(evaluation),
    }
}
