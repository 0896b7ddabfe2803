//! What the round records say of an adapter: whose updates are in it, and how it was measured.

use std::collections::{BTreeMap, BTreeSet};

use rondo_methods::Measured;
use rondo_proto::v1::{Evaluation, RoundRecord};

/// The clients whose updates were aggregated up to a round.
pub(super) fn owners(rounds: &[RoundRecord], until: u32) -> Vec<String> {
    let participants = rounds.iter().filter(|record| record.round <= until).flat_map(|record| &record.participants);
    let names: BTreeSet<&String> =
        participants.filter(|one| one.state == "accepted").map(|participant| &participant.client).collect();
    names.into_iter().cloned().collect()
}

/// Each client's measurement of the adapter after a round, beside its first one before any training; then the groups.
pub(super) fn measured(rounds: &[RoundRecord], round: u32) -> Vec<Measured> {
    let Some(record) = rounds.iter().find(|record| record.round == round) else { return Vec::new() };
    let before = |client: &str| {
        let all = rounds.iter().flat_map(|record| &record.participants);
        all.filter(|participant| participant.client == client).find_map(|participant| participant.before.as_ref())
    };
    let mut rows = Vec::new();
    let mut groups: BTreeMap<String, (Sum, Sum)> = BTreeMap::new();
    for participant in &record.participants {
        let Some(after) = &participant.after else { continue };
        let before = before(&participant.client);
        rows.push(Measured {
            name: participant.client.clone(),
            examples: after.examples,
            before: before.map(|before| (before.loss, before.accuracy)),
            after: (after.loss, after.accuracy),
        });
        let mut add = |evaluation: &Evaluation, first: bool| {
            for group in &evaluation.groups {
                let (before, after) = groups.entry(group.group.clone()).or_default();
                let sum = if first { before } else { after };
                sum.add(group.loss, group.accuracy, group.examples, group.tokens);
            }
        };
        add(after, false);
        if let Some(before) = before {
            add(before, true);
        }
    }
    rows.extend(groups.into_iter().filter(|(_, (_, after))| after.examples > 0).map(|(name, (before, after))| {
        Measured {
            name: format!("all: {name}"),
            examples: after.examples,
            before: (before.examples == after.examples).then(|| before.means()),
            after: after.means(),
        }
    }));
    rows
}

/// Sums from which means over several clients are made.
#[derive(Default)]
struct Sum {
    loss: f64,
    /// Tokens, or examples where the loss is per example.
    units: f64,
    correct: f64,
    examples: u64,
}

impl Sum {
    fn add(&mut self, loss: f64, accuracy: f64, examples: u64, tokens: u64) {
        let units = if tokens > 0 { tokens } else { examples } as f64;
        self.loss += loss * units;
        self.units += units;
        self.correct += accuracy * examples as f64;
        self.examples += examples;
    }

    fn means(&self) -> (f64, f64) {
        (self.loss / self.units, self.correct / self.examples as f64)
    }
}

#[cfg(test)]
mod tests {
    use rondo_proto::v1::{GroupEvaluation, Participant};

    use super::*;

    fn evaluation(loss: f64, tokens: u64) -> Option<Evaluation> {
        let group = GroupEvaluation { group: "qa".into(), loss, accuracy: 0.5, examples: 1, tokens };
        Some(Evaluation { loss, accuracy: 0.5, examples: 1, tokens, groups: vec![group] })
    }

    #[test]
    fn a_card_names_owners_and_means_over_them() {
        let client = |name: &str, before, after| Participant {
            client: name.into(),
            state: "accepted".into(),
            before,
            after,
            ..Participant::default()
        };
        let rounds = [
            RoundRecord {
                round: 1,
                participants: vec![client("b", evaluation(4.0, 1), None), client("a", evaluation(2.0, 3), None)],
                ..RoundRecord::default()
            },
            RoundRecord {
                round: 2,
                participants: vec![client("a", None, evaluation(1.0, 3)), client("b", None, evaluation(2.0, 1))],
                ..RoundRecord::default()
            },
            RoundRecord { round: 3, participants: vec![client("c", None, None)], ..RoundRecord::default() },
        ];
        assert_eq!(owners(&rounds, 2), ["a", "b"]);
        let rows = measured(&rounds, 2);
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "all: qa"]);
        assert_eq!((rows[2].examples, rows[2].before, rows[2].after), (2, Some((2.5, 0.5)), (1.25, 0.5)));
        assert!(measured(&rounds, 9).is_empty());
    }
}
