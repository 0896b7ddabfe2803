//! The records that hold the engine's state: small, versioned, one per subject, so that a step
//! rewrites little.

use std::collections::BTreeMap;

use rondo_proto::{ClientId, RunId, v1};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::invariants::Violation;
use crate::key::RecordKey;
use crate::state::publication::ClosedRound;
use crate::state::{Live, Member, Run, Spec, State};

/// All records, as they were committed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Bytes by key.
    pub records: BTreeMap<RecordKey, Vec<u8>>,
}

/// Why an engine could not be built from records.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ResumeError {
    /// A record does not parse.
    #[error("record {key} is damaged: {problem}; restore the store from its checkpoint")]
    Damaged {
        /// The record.
        key: RecordKey,
        /// What is wrong with it.
        problem: String,
    },
    /// A record of a later program.
    #[error("record {key} has version {version}, but this program knows version {known}: start a newer one")]
    Version {
        /// The record.
        key: RecordKey,
        /// Its version.
        version: u32,
        /// The version known here.
        known: u32,
    },
    /// A run lacks a record that every run has.
    #[error("run `{run}` has records but no {missing}; restore the store from its checkpoint")]
    Incomplete {
        /// The run.
        run: RunId,
        /// "spec" or "live".
        missing: &'static str,
    },
    /// A run that has not ended cannot go on with this program.
    #[error("run `{run}` cannot go on: {reason}; start a program that knows its method")]
    Run {
        /// The run.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// The records contradict one another.
    #[error("the records contradict one another: {0}")]
    Inconsistent(#[from] Violation),
}

/// Version of the records' form. A program reads its own and older ones.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Written<'a, T> {
    version: u32,
    body: &'a T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Read<T> {
    body: T,
}

fn write<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(&Written { version: VERSION, body })
        .expect("record types hold string keys and plain numbers, which always have a JSON form")
}

fn read<T: DeserializeOwned>(key: &RecordKey, bytes: &[u8]) -> Result<T, ResumeError> {
    let damaged = |error: serde_json::Error| ResumeError::Damaged { key: key.clone(), problem: error.to_string() };
    let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version > VERSION {
        return Err(ResumeError::Version { key: key.clone(), version, known: VERSION });
    }
    serde_json::from_slice::<Read<T>>(bytes).map(|record| record.body).map_err(damaged)
}

/// A run whose records are being gathered.
#[derive(Default)]
struct Gathered {
    spec: Option<Spec>,
    live: Option<Live>,
    members: BTreeMap<ClientId, Member>,
    rounds: BTreeMap<u32, ClosedRound>,
    events: BTreeMap<u64, v1::RunEvent>,
}

impl Gathered {
    fn run(self, id: &RunId) -> Result<Run, ResumeError> {
        let incomplete = |missing| ResumeError::Incomplete { run: id.clone(), missing };
        Ok(Run {
            spec: self.spec.ok_or_else(|| incomplete("spec"))?,
            live: self.live.ok_or_else(|| incomplete("live"))?,
            members: self.members,
            rounds: self.rounds,
            events: self.events,
        })
    }
}

impl Snapshot {
    pub(crate) fn into_state(self) -> Result<State, ResumeError> {
        let mut state = State::default();
        let mut runs: BTreeMap<RunId, Gathered> = BTreeMap::new();
        for (key, bytes) in &self.records {
            match key {
                RecordKey::Client(client) => {
                    state.clients.insert(client.clone(), read(key, bytes)?);
                }
                RecordKey::Spec(run) => runs.entry(run.clone()).or_default().spec = Some(read(key, bytes)?),
                RecordKey::Live(run) => runs.entry(run.clone()).or_default().live = Some(read(key, bytes)?),
                RecordKey::Member(run, client) => {
                    let run = runs.entry(run.clone()).or_default();
                    run.members.insert(client.clone(), read(key, bytes)?);
                }
                RecordKey::Round(run, round) => {
                    runs.entry(run.clone()).or_default().rounds.insert(*round, read(key, bytes)?);
                }
                RecordKey::Event(run, sequence) => {
                    runs.entry(run.clone()).or_default().events.insert(*sequence, read(key, bytes)?);
                }
            }
        }
        for (id, gathered) in runs {
            let run = gathered.run(&id)?;
            state.runs.insert(id, run);
        }
        Ok(state)
    }
}

impl State {
    pub(crate) fn record(&self, key: &RecordKey) -> Option<Vec<u8>> {
        let run = |run: &RunId| self.runs.get(run);
        match key {
            RecordKey::Client(client) => self.clients.get(client).map(write),
            RecordKey::Spec(id) => run(id).map(|run| write(&run.spec)),
            RecordKey::Live(id) => run(id).map(|run| write(&run.live)),
            RecordKey::Member(id, client) => run(id)?.members.get(client).map(write),
            RecordKey::Round(id, round) => run(id)?.rounds.get(round).map(write),
            RecordKey::Event(id, sequence) => run(id)?.events.get(sequence).map(write),
        }
    }

    pub(crate) fn records(&self) -> Snapshot {
        let mut keys: Vec<RecordKey> = self.clients.keys().cloned().map(RecordKey::Client).collect();
        for (id, run) in &self.runs {
            keys.extend([RecordKey::Spec(id.clone()), RecordKey::Live(id.clone())]);
            keys.extend(run.members.keys().map(|client| RecordKey::Member(id.clone(), client.clone())));
            keys.extend(run.rounds.keys().map(|round| RecordKey::Round(id.clone(), *round)));
            keys.extend(run.events.keys().map(|sequence| RecordKey::Event(id.clone(), *sequence)));
        }
        let records = keys.into_iter().filter_map(|key| self.record(&key).map(|bytes| (key, bytes))).collect();
        Snapshot { records }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_and_newer_records_are_named() {
        let key = RecordKey::Client(ClientId::new("a").unwrap());
        let resume = |bytes: &[u8]| {
            Snapshot { records: [(key.clone(), bytes.to_vec())].into() }.into_state().unwrap_err().to_string()
        };
        assert!(resume(b"{").contains("client/a is damaged"));
        assert!(resume(br#"{"version":2,"body":{}}"#).contains("version 2"));
    }

    #[test]
    fn a_run_without_its_spec_is_refused() {
        let run = RunId::new("r").unwrap();
        let event = write(&v1::RunEvent::default());
        let records = [(RecordKey::Event(run.clone(), 1), event)].into();
        assert_eq!(Snapshot { records }.into_state(), Err(ResumeError::Incomplete { run, missing: "spec" }));
    }

    #[test]
    fn every_kind_of_record_keeps_its_form() {
        let text = include_str!("../tests/records/version-1.txt");
        let pairs = text.lines().map(|line| line.split_once(' ').unwrap());
        let records: BTreeMap<RecordKey, Vec<u8>> =
            pairs.map(|(key, json)| (key.parse().unwrap(), json.as_bytes().to_vec())).collect();
        let written = Snapshot { records: records.clone() }.into_state().unwrap().records().records;
        assert_eq!(written.len(), records.len());
        for (key, json) in &records {
            assert_eq!(str::from_utf8(&written[key]), str::from_utf8(json), "{key}");
        }
    }
}
