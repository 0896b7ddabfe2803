//! What an experiment shows.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::records::{Evaluation, Participant, Round};

/// One method's run.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    method: String,
    seconds: f64,
    rounds: Vec<Round>,
}

/// A measurement over all clients: each client's first or last one, summed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    loss: f64,
    correct: f64,
    /// Tokens, or examples where the loss is per example: what the loss is a mean over.
    units: f64,
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

    fn loss(&self) -> f64 {
        self.loss / self.units
    }

    fn accuracy(&self) -> f64 {
        self.correct / self.examples as f64
    }
}

/// Before and after, by group; "all" is everything.
type Groups = BTreeMap<String, (Sum, Sum)>;

const ALL: &str = "all";

impl Outcome {
    pub(crate) fn new(method: &str, rounds: Vec<Round>, seconds: f64) -> Self {
        Self { method: method.to_owned(), rounds, seconds }
    }

    fn groups(&self) -> Groups {
        let mut groups = Groups::new();
        let mut ends: BTreeMap<&str, (Option<&Evaluation>, Option<&Evaluation>)> = BTreeMap::new();
        for participant in self.participants() {
            let (first, last) = ends.entry(&participant.client).or_default();
            *first = first.or(participant.before.as_ref());
            *last = participant.after.as_ref().or(*last);
        }
        // Only what was measured at both ends is compared.
        let both = ends.into_values().filter_map(|(first, last)| Some((first?, last?)));
        for (first, last) in both {
            for (evaluation, is_first) in [(first, true), (last, false)] {
                let mut add = |group: &str, loss, accuracy, examples, tokens| {
                    let (before, after) = groups.entry(group.to_owned()).or_default();
                    (if is_first { before } else { after }).add(loss, accuracy, examples, tokens);
                };
                add(ALL, evaluation.loss, evaluation.accuracy, evaluation.examples, evaluation.tokens);
                for part in &evaluation.groups {
                    add(&part.group, part.loss, part.accuracy, part.examples, part.tokens);
                }
            }
        }
        groups
    }

    fn participants(&self) -> impl Iterator<Item = &Participant> {
        self.rounds.iter().flat_map(|round| &round.participants)
    }

    /// Groups whose loss did not fall.
    pub(crate) fn misses(&self) -> Vec<String> {
        let groups = self.groups();
        if groups.is_empty() {
            return vec![format!("{}: nothing was measured before and after", self.method)];
        }
        let risen = groups.iter().filter(|(_, (before, after))| after.loss().total_cmp(&before.loss()).is_ge());
        risen
            .map(|(group, (before, after))| {
                format!("{}: {group} went from loss {:.4} to {:.4}", self.method, before.loss(), after.loss())
            })
            .collect()
    }
}

/// Two tables: loss by group, and what it took.
pub(crate) fn shown(outcomes: &[Outcome]) -> String {
    let mut out = String::from("\n| group | examples |");
    let measured: Vec<Groups> = outcomes.iter().map(Outcome::groups).collect();
    for outcome in outcomes {
        let _ = write!(out, " {} loss before | after |", outcome.method);
    }
    out += &format!("\n|---|---|{}\n", "---|---|".repeat(outcomes.len()));
    let names: std::collections::BTreeSet<&String> = measured.iter().flat_map(BTreeMap::keys).collect();
    for name in names {
        let examples = measured.iter().filter_map(|groups| groups.get(name)).map(|(_, after)| after.examples).max();
        let _ = write!(out, "| {name} | {} |", examples.unwrap_or(0));
        for groups in &measured {
            let _ = match groups.get(name) {
                Some((before, after)) => write!(out, " {:.3} | {:.3} |", before.loss(), after.loss()),
                None => write!(out, " - | - |"),
            };
        }
        out += "\n";
    }
    out += "\n| method | ranks | accuracy before | after | bytes up per client and round | bytes down | seconds |\n";
    out += "|---|---|---|---|---|---|---|\n";
    for (outcome, groups) in outcomes.iter().zip(&measured) {
        let (before, after) = groups.get(ALL).copied().unwrap_or_default();
        let trained: Vec<&Participant> = outcome
            .rounds
            .iter()
            .filter(|round| round.kind == "training")
            .flat_map(|round| &round.participants)
            .collect();
        let _ = writeln!(
            out,
            "| {} | {} | {:.3} | {:.3} | {} | {} | {:.0} |",
            outcome.method,
            range(trained.iter().map(|participant| u64::from(participant.rank))),
            before.accuracy(),
            after.accuracy(),
            range(trained.iter().map(|participant| participant.bytes_up)),
            range(trained.iter().map(|participant| participant.bytes_down)),
            outcome.seconds
        );
    }
    out
}

fn range(values: impl Iterator<Item = u64> + Clone) -> String {
    let values = values.filter(|value| *value > 0);
    match (values.clone().min(), values.max()) {
        (Some(least), Some(most)) if least == most => least.to_string(),
        (Some(least), Some(most)) => format!("{least} to {most}"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::GroupEvaluation;

    fn measured(loss: f64, tokens: u64) -> Option<Evaluation> {
        let group = GroupEvaluation { group: "qa".into(), loss, accuracy: 0.5, examples: 2, tokens };
        Some(Evaluation { loss, accuracy: 0.5, examples: 2, tokens, groups: vec![group] })
    }

    #[test]
    fn losses_are_weighed_by_tokens_and_the_first_before_and_last_after_count() {
        let one = Participant { client: "a".into(), before: measured(4.0, 10), ..Participant::default() };
        let two = Participant { client: "b".into(), before: measured(1.0, 30), ..Participant::default() };
        let first = Round { participants: vec![one.clone(), two.clone()], ..Round::default() };
        let after = |participant: &Participant, loss, tokens| Participant {
            before: measured(99.0, 1),
            after: measured(loss, tokens),
            ..participant.clone()
        };
        let last = Round { participants: vec![after(&one, 2.0, 10), after(&two, 2.0, 30)], ..Round::default() };
        let outcome = Outcome::new("flora", vec![first, last], 1.0);
        let (before, end) = outcome.groups()["qa"];
        assert!((before.loss() - 1.75).abs() < 1e-12 && (end.loss() - 2.0).abs() < 1e-12);
        let misses = outcome.misses();
        assert_eq!(misses.len(), 2, "{misses:?}");
        assert!(misses[1].contains("qa went from loss 1.7500 to 2.0000"), "{misses:?}");
        assert!(shown(&[outcome]).contains("| qa | 4 | 1.750 | 2.000 |"));
    }

    #[test]
    fn nothing_measured_is_a_miss() {
        assert_eq!(Outcome::new("flora", Vec::new(), 1.0).misses().len(), 1);
    }
}
