//! Which rounds the adapter is made of, which of them is the best, and which states of the server
//! optimiser are needed.
//!
//! All of it follows from the closed rounds alone. Their records are written once, so a restart
//! finds the same, and a roll-back is only a line in the record of the round that was rolled back.

use std::collections::{BTreeMap, BTreeSet};

use rondo_proto::run_file::Keep;
use rondo_proto::{Digest, v1};

use crate::policy::HeldOut;
use crate::state::Run;
use crate::state::phase::Phase;
use crate::state::publication::{AdapterBlobs, Publication};

/// The mean loss of evaluations, by tokens that count or, where not all of them count tokens, by
/// examples.
pub(crate) fn mean_loss(evaluations: &[&v1::Evaluation]) -> Option<f64> {
    let by_tokens = evaluations.iter().all(|evaluation| evaluation.tokens > 0);
    let weight = |evaluation: &v1::Evaluation| if by_tokens { evaluation.tokens } else { evaluation.examples } as f64;
    let total: f64 = evaluations.iter().map(|evaluation| weight(evaluation)).sum();
    (total > 0.0).then(|| evaluations.iter().map(|evaluation| weight(evaluation) / total * evaluation.loss).sum())
}

impl Run {
    /// Rounds whose publications make up the state after `round`, or the present one, oldest first.
    /// A round that was rolled back is part of the state that it published and of no later one.
    pub fn lineage(&self, round: Option<u32>) -> Vec<u32> {
        let mut kept: Vec<u32> = Vec::new();
        for (number, _) in self.publications().filter(|(number, _)| round.is_none_or(|last| *number <= last)) {
            kept.push(number);
            let back = self.rounds.get(&number).and_then(|closed| closed.record.rolled_back_to);
            if let Some(back) = back.filter(|_| round != Some(number)) {
                kept.retain(|kept| *kept <= back);
            }
        }
        kept
    }

    /// The adapter after `round`, or the present one.
    pub fn adapter(&self, round: Option<u32>) -> AdapterBlobs {
        let publications: BTreeMap<u32, &Publication> = self.publications().collect();
        let start_adapter = self.spec.start_adapter.as_ref().map(|adapter| (adapter.digest, adapter.layout_bytes));
        let mut adapter = AdapterBlobs { start_adapter, ..AdapterBlobs::default() };
        for number in self.lineage(round) {
            let Some(publication) = publications.get(&number) else { continue };
            adapter.round = number;
            if publication.frozen.is_some() {
                adapter.frozen.clone_from(&publication.frozen);
            }
            if publication.server.is_some() {
                adapter.server = publication.server;
            }
            if !self.spec.accumulates {
                adapter.published.clear();
            }
            adapter.published.push((number, (*publication).clone()));
        }
        adapter
    }

    /// What the run hands out to operators: the present adapter or, once a run that keeps its best
    /// round has ended, that round's.
    pub fn result(&self) -> AdapterBlobs {
        let ended = matches!(self.live.phase, Phase::Ended(_));
        let best = self.best().filter(|_| ended && self.spec.policy.keep == Keep::Best);
        self.adapter(best.map(|(round, _)| round))
    }

    /// The closed round with the lowest held-out loss, and that loss; of equal ones the first.
    pub fn best(&self) -> Option<(u32, f64)> {
        let measured = self.rounds.iter().filter_map(|(round, closed)| Some((*round, closed.record.held_out_loss?)));
        measured.reduce(|best, next| if next.1 < best.1 { next } else { best })
    }

    /// What the measurements of the open round come to.
    pub(crate) fn held_out(&self) -> HeldOut {
        if self.live.open.diverged {
            return HeldOut::Diverged;
        }
        let measured = self.measuring().and_then(|measuring| measuring.after.as_ref());
        let evaluations: Vec<_> =
            self.participations().filter_map(|(_, part)| part.after.as_ref()).chain(measured).collect();
        match mean_loss(&evaluations) {
            None => HeldOut::None,
            // A sum of finite numbers may be infinite.
            Some(loss) if !loss.is_finite() => HeldOut::Diverged,
            Some(loss) => HeldOut::Loss(loss),
        }
    }

    /// States of the server optimiser that an aggregation may still start from: the present one,
    /// and the one to which a roll-back would return.
    pub(crate) fn server_blobs(&self) -> BTreeSet<Digest> {
        if matches!(self.live.phase, Phase::Ended(_)) {
            return BTreeSet::new();
        }
        let best = self.best().filter(|_| self.spec.policy.rollback.is_some());
        let at_best = best.and_then(|(round, _)| self.adapter(Some(round)).server);
        self.adapter(None).server.into_iter().chain(at_best).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(loss: f64, examples: u64, tokens: u64) -> v1::Evaluation {
        v1::Evaluation { loss, examples, tokens, accuracy: 0.5, ..Default::default() }
    }

    #[test]
    fn a_mean_loss_weighs_by_what_the_losses_are_means_over() {
        let mean = |evaluations: &[v1::Evaluation]| mean_loss(&evaluations.iter().collect::<Vec<_>>());
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[evaluation(1.0, 1, 0), evaluation(2.0, 3, 0)]), Some(1.75));
        assert_eq!(mean(&[evaluation(1.0, 1, 300), evaluation(2.0, 3, 100)]), Some(1.25));
        // One that counts no tokens weighs with its examples, and so do the others.
        assert_eq!(mean(&[evaluation(1.0, 1, 300), evaluation(2.0, 3, 0)]), Some(1.75));
    }
}
