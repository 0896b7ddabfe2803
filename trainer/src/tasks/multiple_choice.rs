//! `multiple-choice`: which of a question's options the model holds likeliest.
//!
//! An option's log-likelihood is the sum of log p over its tokens, given the prompt. Options
//! compare by this sum, or by the mean over their tokens (`option_score`). Accuracy = share of
//! questions whose right option scores best, the first one of equals; loss = -log p of the right
//! options' tokens, per token.

use rondo_data::Split;
use rondo_proto::run_file::{OptionScore, Task};
use rondo_trainer_api::work::OnProgress;

use super::causal_lm::counted;
use super::score::{LossUnit, Scores, Share};
use super::{Outcome, Ticker, Verdict};
use crate::error::TrainerError;
use crate::session::{Session, TextLoss};
use crate::text::tokens::Tokens;

/// Questions scored together.
const PART: usize = 128;

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
    let rows = tokens.rows(part, task)?;
    for first in (0..count).step_by(PART) {
        let asked: Vec<usize> = (first..count.min(first + PART)).collect();
        let (examples, choices) = rows.take_choices(&asked)?;
        let texts = choices.encoded.len();
        let share = asked.len() as f64 / texts.max(1) as f64;
        let mut tick = |done: usize| ticker.show((done as f64 * share) as usize);
        let losses = session.token_losses(&choices.encoded, texts, &mut tick)?;
        ticker.advance(asked.len());
        for (question, example) in examples.into_iter().enumerate() {
            let options = &losses[choices.options(question)];
            let verdict = verdict_of(options, choices.answers[question], task.option_score);
            let right = u64::from(verdict.right == Some(true));
            let loss = options.get(choices.answers[question]).map_or(0.0, |option| option.loss);
            scores.add(example.group.as_deref(), Share { loss, units: verdict.tokens, right, tries: 1 });
            verdicts.push((example, verdict));
        }
    }
    let evaluation = counted(scores.evaluation(LossUnit::Token))?;
    Ok(Outcome { evaluation, verdicts })
}

/// An option of which no token is left (the prompt filled the limit) scores below every other.
fn verdict_of(options: &[TextLoss], answer: usize, by: OptionScore) -> Verdict {
    let score = |option: &TextLoss| match (option.tokens, by) {
        (0, _) => f64::NEG_INFINITY,
        (_, OptionScore::Sum) => -option.loss,
        (tokens, OptionScore::PerToken) => -option.loss / tokens as f64,
    };
    let scores: Vec<f64> = options.iter().map(score).collect();
    let mut chosen = 0;
    for (option, score) in scores.iter().enumerate() {
        if *score > scores[chosen] {
            chosen = option;
        }
    }
    let (loss, tokens) = options.get(answer).map_or((0.0, 0), |option| (option.loss, option.tokens));
    Verdict {
        loss: (tokens > 0).then(|| loss / tokens as f64),
        tokens,
        right: Some(tokens > 0 && chosen == answer),
        chosen: Some(chosen),
        wanted: Some(answer),
        scores,
        ..Verdict::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(loss: f64, tokens: u64) -> TextLoss {
        TextLoss { loss, tokens, hits: 0 }
    }

    #[test]
    fn long_options_are_at_a_loss_only_by_sum() {
        let options = [option(2.0, 1), option(3.0, 3), option(5.0, 2)];
        let by_token = verdict_of(&options, 1, OptionScore::PerToken);
        assert_eq!((by_token.chosen, by_token.right, by_token.loss), (Some(1), Some(true), Some(1.0)));
        assert_eq!(by_token.scores, [-2.0, -1.0, -2.5]);
        let by_sum = verdict_of(&options, 1, OptionScore::Sum);
        assert_eq!((by_sum.chosen, by_sum.right), (Some(0), Some(false)));
        assert_eq!(by_sum.scores, [-2.0, -3.0, -5.0]);
    }

    #[test]
    fn an_option_without_tokens_never_wins() {
        let cut = verdict_of(&[option(0.0, 0), option(9.0, 1)], 0, OptionScore::PerToken);
        assert_eq!((cut.chosen, cut.right, cut.loss), (Some(1), Some(false), None));
        let all_cut = verdict_of(&[option(0.0, 0), option(0.0, 0)], 0, OptionScore::Sum);
        assert_eq!(all_cut.right, Some(false));
        // Of equals the first is chosen.
        assert_eq!(verdict_of(&[option(2.0, 1), option(2.0, 1)], 1, OptionScore::Sum).chosen, Some(0));
    }
}
