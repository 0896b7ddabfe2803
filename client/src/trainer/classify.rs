//! Text classification: token states to one vector, a linear head, cross entropy and accuracy.

use rondo_proto::run_file::Pooling;
use tch::{Reduction, Tensor};

use super::batch::Batch;
use super::error::TrainerError;

/// The classifier: logits = pooled W^T + b, in f32.
pub struct Head {
    /// `[labels, hidden]`
    pub weight: Tensor,
    /// `[labels]`
    pub bias: Tensor,
    /// How token states become one vector.
    pub pooling: Pooling,
}

impl Head {
    /// Token states `[n, hidden]` of a batch to logits `[texts, labels]`.
    pub fn logits(&self, states: &Tensor, batch: &Batch) -> Result<Tensor, TrainerError> {
        let pooled = match self.pooling {
            Pooling::Mean => batch.mean(states)?,
            Pooling::Cls => batch.first(states)?,
        };
        Ok(pooled.f_linear(&self.weight, Some(&self.bias))?)
    }
}

/// Mean cross entropy in nats; `labels` by row of the logits.
pub fn mean_loss(logits: &Tensor, labels: &[i64]) -> Result<Tensor, TrainerError> {
    let labels = Tensor::f_from_slice(labels)?.f_to_device(logits.device())?;
    Ok(logits.f_cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0)?)
}

/// Loss and hits, summed over examples in f64.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    loss: f64,
    correct: u64,
    examples: u64,
}

impl Score {
    /// Adds one example's logits. Of equal largest logits the first counts as the answer.
    pub fn add(&mut self, logits: &[f32], label: usize) {
        let answer = answer(logits);
        let largest = f64::from(logits[answer]);
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
        self.loss += sum.ln() + largest - f64::from(logits[label]);
        self.correct += u64::from(answer == label);
        self.examples += 1;
    }

    /// Means over the examples added.
    pub fn evaluation(&self) -> rondo_proto::v1::Evaluation {
        let examples = self.examples.max(1) as f64;
        rondo_proto::v1::Evaluation {
            loss: self.loss / examples,
            accuracy: self.correct as f64 / examples,
            examples: self.examples,
            ..Default::default()
        }
    }
}

/// Index of the first largest logit.
pub fn answer(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_cross_entropy_and_accuracy() {
        let mut score = Score::default();
        score.add(&[0.0, 0.0], 0);
        score.add(&[0.0, 0.0], 1);
        score.add(&[1000.0, 0.0], 1);
        let evaluation = score.evaluation();
        assert!((evaluation.loss - (2.0 * 2.0_f64.ln() + 1000.0) / 3.0).abs() < 1e-9, "{evaluation:?}");
        assert_eq!((evaluation.accuracy, evaluation.examples), (1.0 / 3.0, 3));
        let logits = Tensor::from_slice(&[0.3_f32, -0.4, 1.2, 0.5, 0.5, 0.1]).view([2, 3]);
        let mut by_hand = Score::default();
        by_hand.add(&[0.3, -0.4, 1.2], 2);
        by_hand.add(&[0.5, 0.5, 0.1], 1);
        let torch = mean_loss(&logits, &[2, 1]).unwrap().double_value(&[]);
        assert!((by_hand.evaluation().loss - torch).abs() < 1e-6);
    }
}
