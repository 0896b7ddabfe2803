//! What a demo did, as figures, and the file that keeps them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::records::{Round, Spent};

const FILE: &str = "report.json";

/// A whole demo.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Whether it was a `--fast` one.
    pub(crate) fast: bool,
    /// Number of clients.
    pub(crate) clients: u32,
    /// The epsilon of a private demo.
    #[serde(default)]
    pub(crate) epsilon: Option<f64>,
    /// From the first process to the last result; setup and compilation left out.
    pub(crate) seconds: f64,
    /// One entry per method, in the order they ran.
    pub(crate) methods: Vec<MethodReport>,
}

/// One run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MethodReport {
    /// Registry id.
    pub(crate) method: String,
    /// Run id.
    pub(crate) run: String,
    /// Of this run alone.
    pub(crate) seconds: f64,
    /// Folder that Python's peft loads.
    pub(crate) adapter: PathBuf,
    /// Per client, by name.
    pub(crate) clients: Vec<ClientReport>,
    /// All closed rounds.
    pub(crate) rounds: Vec<Round>,
}

/// One client in one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClientReport {
    /// Its name, which is its domain.
    pub(crate) client: String,
    /// Held-out accuracy of the model as first received.
    pub(crate) before: Option<f64>,
    /// Held-out accuracy of the last published adapter it measured.
    pub(crate) after: Option<f64>,
    /// Held-out examples of that measurement.
    pub(crate) held_out: u64,
    /// Share of its larger class; of a private run.
    #[serde(default)]
    pub(crate) majority: Option<f64>,
    /// What the run cost its data; of a private run.
    #[serde(default)]
    pub(crate) privacy: Option<Spent>,
}

impl MethodReport {
    /// Sums up a completed run.
    pub(crate) fn new(method: &str, run: &str, rounds: Vec<Round>, adapter: PathBuf, seconds: f64) -> Result<Self> {
        let mut clients: Vec<ClientReport> = Vec::new();
        for participant in rounds.iter().flat_map(|round| &round.participants) {
            let known = clients.iter().position(|client| client.client == participant.client);
            let index = known.unwrap_or_else(|| {
                let client = participant.client.clone();
                clients.push(ClientReport {
                    client,
                    before: None,
                    after: None,
                    held_out: 0,
                    majority: None,
                    privacy: None,
                });
                clients.len() - 1
            });
            let client = &mut clients[index];
            client.before = client.before.or(participant.before.as_ref().map(|evaluation| evaluation.accuracy));
            client.privacy = participant.privacy.clone().or(client.privacy.take());
            if let Some(after) = &participant.after {
                client.after = Some(after.accuracy);
                client.held_out = after.examples;
            }
        }
        clients.sort_by_key(|client| domain_order(&client.client));
        rounds.last().with_context(|| format!("run {run} has no closed round"))?;
        Ok(Self { method: method.to_owned(), run: run.to_owned(), seconds, adapter, clients, rounds })
    }

    /// The rank of the adapter.
    pub(crate) fn rank(&self) -> u32 {
        let all = self.rounds.iter().flat_map(|round| &round.participants);
        all.map(|participant| participant.rank).max().unwrap_or(0)
    }

    /// Bytes up of the largest training update of one client and round, as counted on the wire.
    pub(crate) fn upload(&self) -> u64 {
        let training = self.rounds.iter().filter(|round| round.kind == "training");
        training.flat_map(|round| &round.participants).map(|participant| participant.bytes_up).max().unwrap_or(0)
    }
}

/// Domains in the order of the demo, then by name.
fn domain_order(client: &str) -> (usize, String) {
    let at = crate::setup::DOMAINS.iter().position(|(domain, _)| client.starts_with(domain));
    (at.unwrap_or(usize::MAX), client.to_owned())
}

impl Report {
    /// An empty report.
    pub(crate) fn new(fast: bool, clients: u32, epsilon: Option<f64>) -> Self {
        Self { fast, clients, epsilon, seconds: 0.0, methods: Vec::new() }
    }

    /// Adds a run.
    pub(crate) fn add(&mut self, method: MethodReport) {
        self.methods.push(method);
    }

    /// Writes `report.json` and returns its path.
    pub(crate) fn save(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join(FILE);
        std::fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Reads a demo's report; `None` when it did not get that far.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))?))
    }
}

/// A share with three digits, or a dash.
pub(super) fn share(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Evaluation, Participant};

    fn participant(client: &str, before: Option<f64>, after: Option<f64>) -> Participant {
        let measured = |accuracy| Evaluation { loss: 0.5, accuracy, examples: 100, ..Evaluation::default() };
        Participant {
            client: client.to_owned(),
            before: before.map(measured),
            after: after.map(measured),
            bytes_up: 1000,
            ..Participant::default()
        }
    }

    #[test]
    fn the_first_before_and_the_last_after_count() {
        let round =
            |round, participants| Round { round, kind: "training".to_owned(), participants, ..Round::default() };
        let rounds = vec![
            round(1, vec![participant("tweets", Some(0.3), Some(0.5)), participant("movies", Some(0.4), None)]),
            round(2, vec![participant("tweets", None, Some(0.9)), participant("movies", None, Some(0.8))]),
        ];
        let report = MethodReport::new("fed-sb", "r", rounds, PathBuf::from("/a"), 1.0).unwrap();
        let seen: Vec<_> = report.clients.iter().map(|c| (c.client.as_str(), c.before, c.after)).collect();
        assert_eq!(seen, [("movies", Some(0.4), Some(0.8)), ("tweets", Some(0.3), Some(0.9))]);
    }

    #[test]
    fn a_saved_report_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Report::load(dir.path()).unwrap().is_none());
        let mut report = Report::new(true, 4, None);
        let rounds = vec![Round { round: 1, aggregation_error: Some(1e-9), ..Round::default() }];
        report.add(MethodReport::new("flora", "r", rounds, PathBuf::from("/a"), 1.0).unwrap());
        report.save(dir.path()).unwrap();
        let read = Report::load(dir.path()).unwrap().unwrap();
        assert_eq!(read.methods[0].rounds, report.methods[0].rounds);
    }
}
