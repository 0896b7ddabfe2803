//! A round in a few numbers: losses weighed by what they are means over, accuracies by examples.

use std::collections::BTreeMap;

use rondo_proto::v1::{Evaluation, GroupEvaluation, RoundRecord};

/// A number with some digits, or a dash.
pub(crate) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// A round in a few numbers: means over the clients, weighed as they should be.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Totals {
    /// Updates that were aggregated.
    pub(crate) updates: usize,
    /// Clients that were dropped.
    pub(crate) dropped: usize,
    /// Training loss, weighed by the clients' shares.
    pub(crate) loss: Option<f64>,
    /// Loss of the published adapter on held-out data.
    pub(crate) held_out: Option<f64>,
    /// exp of it, where it is a mean over tokens.
    pub(crate) perplexity: Option<f64>,
    /// Accuracy of the published adapter, weighed by held-out examples.
    pub(crate) accuracy: Option<f64>,
    /// Bytes from all clients.
    pub(crate) up: u64,
    /// Bytes to all clients.
    pub(crate) down: u64,
}

/// What the published adapter was measured with, at
/// participants or at the one client that measures.
fn after(record: &RoundRecord) -> impl Iterator<Item = &Evaluation> + Clone {
    let one = record.measurement.iter().filter_map(|measured| measured.after.as_ref());
    record.participants.iter().filter_map(|participant| participant.after.as_ref()).chain(one)
}

fn mean(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
    let weight: f64 = pairs.clone().map(|(weight, _)| weight).sum();
    (weight > 0.0).then(|| pairs.map(|(weight, value)| weight * value).sum::<f64>() / weight)
}

/// Whether the losses of a round are means over tokens, as those of language models are.
pub(crate) fn counts_tokens(record: &RoundRecord) -> bool {
    let mut before = record.participants.iter().filter_map(|participant| participant.before.as_ref());
    before.any(|evaluation| evaluation.tokens > 0) || after(record).any(|evaluation| evaluation.tokens > 0)
}

/// exp(loss), of a loss that is a mean over tokens.
pub(crate) fn perplexity(evaluation: &Evaluation) -> Option<f64> {
    (evaluation.tokens > 0).then(|| evaluation.loss.exp())
}

/// Sums a round up.
pub(crate) fn totals(record: &RoundRecord) -> Totals {
    let accepted = || record.participants.iter().filter(|participant| participant.state == "accepted");
    let evaluations = after(record);
    let by_tokens = counts_tokens(record);
    let weight = |one: &Evaluation| if by_tokens { one.tokens } else { one.examples } as f64;
    // The coordinator's own figure once the round is closed: it is what rounds are compared by.
    let held_out = match record.ended_at_ms {
        0 => mean(evaluations.clone().map(|one| (weight(one), one.loss))),
        _ => record.held_out_loss.or_else(|| mean(evaluations.clone().map(|one| (weight(one), one.loss)))),
    };
    let one = record.measurement.as_ref();
    Totals {
        updates: accepted().count(),
        dropped: record.participants.iter().filter(|participant| participant.state == "dropped").count(),
        // A warm-up trains nothing, with privacy losses stay at home, and a site may withhold its own.
        loss: mean(accepted().filter(|part| !part.metrics_withheld).map(|part| (part.weight, part.train_loss)))
            .filter(|_| record.kind != "warm-up" && !is_private(record)),
        held_out,
        perplexity: held_out.filter(|_| by_tokens).map(f64::exp),
        accuracy: mean(evaluations.map(|one| (one.examples as f64, one.accuracy))),
        up: record.participants.iter().map(|participant| participant.bytes_up).sum(),
        down: record.participants.iter().map(|participant| participant.bytes_down).sum::<u64>()
            + one.map_or(0, |measured| measured.bytes_down),
    }
}

/// Whether the round's updates report nothing but tensors and what they cost.
fn is_private(record: &RoundRecord) -> bool {
    record.released.is_some() || record.participants.iter().any(|participant| participant.privacy.is_some())
}

/// The published adapter by group, over all who measured, by name.
pub(crate) fn after_groups(record: &RoundRecord) -> Vec<GroupEvaluation> {
    by_group(after(record))
}

/// Evaluations by group, summed over all of them, by name.
pub(crate) fn by_group<'e>(evaluations: impl Iterator<Item = &'e Evaluation>) -> Vec<GroupEvaluation> {
    let mut groups: BTreeMap<&str, Vec<&GroupEvaluation>> = BTreeMap::new();
    for group in evaluations.flat_map(|evaluation| &evaluation.groups) {
        groups.entry(&group.group).or_default().push(group);
    }
    let sum = |name: &str, parts: &[&GroupEvaluation]| {
        let examples = parts.iter().map(|part| part.examples).sum();
        let tokens = parts.iter().map(|part| part.tokens).sum();
        let weight = |part: &GroupEvaluation| if tokens > 0 { part.tokens } else { part.examples } as f64;
        GroupEvaluation {
            group: name.to_owned(),
            loss: mean(parts.iter().map(|part| (weight(part), part.loss))).unwrap_or_default(),
            accuracy: mean(parts.iter().map(|part| (part.examples as f64, part.accuracy))).unwrap_or_default(),
            examples,
            tokens,
        }
    };
    groups.into_iter().map(|(name, parts)| sum(name, &parts)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rondo_proto::v1::{Measurement, Participant};

    fn record() -> RoundRecord {
        let client = |state: &str, weight, train_loss, accuracy, examples| Participant {
            state: state.to_owned(),
            weight,
            train_loss,
            bytes_up: 1020,
            after: (examples > 0).then(|| Evaluation { loss: accuracy, accuracy, examples, ..Default::default() }),
            ..Participant::default()
        };
        RoundRecord {
            kind: "training".to_owned(),
            participants: vec![
                client("accepted", 0.25, 1.0, 0.5, 300),
                client("accepted", 0.75, 2.0, 0.9, 100),
                client("dropped", 0.0, 0.0, 0.0, 0),
            ],
            ..RoundRecord::default()
        }
    }

    #[test]
    fn a_round_is_summed_up() {
        let sums = totals(&record());
        assert_eq!((sums.updates, sums.dropped, sums.up), (2, 1, 3060));
        assert!((sums.loss.unwrap() - 1.75).abs() < 1e-12 && (sums.accuracy.unwrap() - 0.6).abs() < 1e-12);
        assert!((sums.held_out.unwrap() - 0.6).abs() < 1e-12 && sums.perplexity.is_none());
        assert_eq!(totals(&RoundRecord { kind: "warm-up".to_owned(), ..record() }).loss, None);
        // What the coordinator compared by stands above what can be computed here.
        let closed = RoundRecord { ended_at_ms: 1, held_out_loss: Some(0.7), ..record() };
        assert_eq!(totals(&closed).held_out, Some(0.7));
    }

    #[test]
    fn a_measurement_at_one_client_is_the_rounds() {
        let after = Some(Evaluation { loss: 1.0, accuracy: 0.25, examples: 8, tokens: 80, ..Default::default() });
        let measurement = Some(Measurement { after, bytes_down: 70, ..Measurement::default() });
        let mut record = RoundRecord { measurement, ..record() };
        record.participants.iter_mut().for_each(|participant| participant.after = None);
        let sums = totals(&record);
        assert_eq!((sums.held_out, sums.accuracy, sums.down), (Some(1.0), Some(0.25), 70));
        assert!((sums.perplexity.unwrap() - std::f64::consts::E).abs() < 1e-12);
    }
}
