//! What the round records say of an adapter: whose updates are in it, and how it was measured.

use std::collections::BTreeSet;

use rondo_methods::Measured;
use rondo_proto::v1::{Evaluation, RoundRecord};

use crate::render::round::by_group;

/// The clients whose updates were aggregated up to a round; nobody of cohorts that were sampled for
/// privacy, which protect less once they are known.
pub(super) fn owners(rounds: &[RoundRecord], until: u32) -> Vec<String> {
    let is_secret = |record: &RoundRecord| record.released.as_ref().is_some_and(|report| report.sampling_rate < 1.0);
    let shown = rounds.iter().filter(|record| record.round <= until && !is_secret(record));
    let participants = shown.flat_map(|record| &record.participants);
    let names: BTreeSet<&String> =
        participants.filter(|one| one.state == "accepted").map(|participant| &participant.client).collect();
    names.into_iter().cloned().collect()
}

/// Each client's measurement of the adapter after a round (or that of the one client that
/// measures), beside its first one before any training; then the groups over all of them.
pub(super) fn measured(rounds: &[RoundRecord], round: u32) -> Vec<Measured> {
    let Some(record) = rounds.iter().find(|record| record.round == round) else { return Vec::new() };
    let participants = record.participants.iter().map(|one| (one.client.as_str(), one.after.as_ref()));
    let named = record.measurement.iter().map(|one| (one.client.as_str(), one.after.as_ref()));
    let after: Vec<(&str, &Evaluation)> =
        participants.chain(named).filter_map(|(client, after)| Some((client, after?))).collect();
    let first = |client: &str| {
        let mut all = rounds.iter().flat_map(|record| &record.participants);
        all.find_map(|participant| participant.before.as_ref().filter(|_| participant.client == client))
    };
    let mut rows: Vec<Measured> = after
        .iter()
        .map(|(client, after)| Measured {
            name: (*client).to_owned(),
            examples: after.examples,
            before: first(client).map(|before| (before.loss, before.accuracy)),
            after: (after.loss, after.accuracy),
        })
        .collect();
    let before = by_group(after.iter().filter_map(|(client, _)| first(client)));
    rows.extend(by_group(after.iter().map(|(_, after)| *after)).into_iter().map(|group| {
        let before = before.iter().find(|before| before.group == group.group && before.examples == group.examples);
        Measured {
            name: format!("all: {}", group.group),
            examples: group.examples,
            before: before.map(|before| (before.loss, before.accuracy)),
            after: (group.loss, group.accuracy),
        }
    }));
    rows
}

#[cfg(test)]
mod tests {
    use rondo_proto::v1::{GroupEvaluation, Participant, PrivacyReport};

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
        let released = Some(PrivacyReport { sampling_rate: 0.1, ..PrivacyReport::default() });
        let sampled: Vec<RoundRecord> =
            rounds.iter().map(|record| RoundRecord { released: released.clone(), ..record.clone() }).collect();
        assert!(owners(&sampled, 2).is_empty(), "who was drawn is a secret");
        let rows = measured(&rounds, 2);
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "all: qa"]);
        assert_eq!((rows[2].examples, rows[2].before, rows[2].after), (2, Some((2.5, 0.5)), (1.25, 0.5)));
        assert!(measured(&rounds, 9).is_empty());
    }
}
