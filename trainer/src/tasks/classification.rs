//! `classification`: one label out of a fixed list. Loss = mean cross entropy per text,
//! accuracy = share of right labels.

use rondo_data::Split;
use rondo_proto::run_file::Task;
use rondo_trainer_api::work::OnProgress;

use super::score::{LossUnit, Scores, Share};
use super::{HELD_OUT, Outcome, Ticker, Verdict};
use crate::error::TrainerError;
use crate::generate::sampling::likeliest;
use crate::session::Session;
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
        let logits = session.predict(&rows.encoded, rows.encoded.len(), &mut |done| ticker.show(done))?;
        ticker.advance(rows.examples.len());
        for (example, logits) in rows.examples.into_iter().zip(logits) {
            let verdict = verdict_of(&logits, example.label() as usize);
            let loss = verdict.loss.unwrap_or_default();
            let right = u64::from(verdict.right == Some(true));
            scores.add(example.group.as_deref(), Share { loss, units: 1, right, tries: 1 });
            verdicts.push((example, verdict));
        }
    }
    if verdicts.is_empty() {
        return Err(TrainerError::NoExamples { what: HELD_OUT });
    }
    Ok(Outcome { evaluation: scores.evaluation(LossUnit::Example), verdicts })
}

/// Cross entropy and choice of one text's logits. Of equal largest logits the first counts as the
/// choice.
fn verdict_of(logits: &[f32], label: usize) -> Verdict {
    let chosen = likeliest(logits).unwrap_or_default();
    let largest = f64::from(logits[chosen]);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    Verdict {
        loss: Some(sum.ln() + largest - f64::from(logits[label])),
        right: Some(chosen == label),
        chosen: Some(chosen),
        wanted: Some(label),
        scores: logits.iter().map(|&logit| f64::from(logit)).collect(),
        ..Verdict::default()
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    #[test]
    fn loss_is_cross_entropy_as_torch_computes_it() {
        let rows = [([0.3_f32, -0.4, 1.2], 2), ([0.5, 0.5, 0.1], 1), ([1000.0, 0.0, 0.0], 1)];
        for (logits, label) in rows {
            let torch =
                Tensor::from_slice(&logits).view([1, 3]).cross_entropy_for_logits(&Tensor::from_slice(&[label as i64]));
            let verdict = verdict_of(&logits, label);
            assert!((verdict.loss.unwrap() - torch.double_value(&[])).abs() < 1e-6, "{logits:?}");
        }
        assert_eq!(verdict_of(&[0.5, 0.5, 0.1], 1).chosen, Some(0), "of equals the first");
        assert_eq!(verdict_of(&[0.5, 0.6, 0.1], 1).right, Some(true));
    }
}
