//! Why an assignment failed, in two messages: the whole of it for this machine's log, and one
//! without paths, file names or anything out of the data for the coordinator.

use rondo_data::DataError;
use rondo_dp::{LedgerError, PlanError, PrivacyError};
use rondo_methods::MethodError;
use rondo_proto::ids::InvalidId;
use rondo_proto::run_file::RunFileError;
use rondo_trainer_api::memory::ModelSizesError;
use rondo_trainer_api::work::WorkError;

use crate::api::ApiError;
use crate::cache::CacheError;
use crate::history::HistoryError;
use crate::models::ModelError;
use crate::policy::Decline;
use crate::spool::SpoolError;

/// Why an invitation was declined or an assignment failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The coordinator asked the client to stop; nothing failed.
    #[error("stopped by the coordinator: {0}")]
    Stopped(String),
    /// The coordinator asked for something that makes no sense or was not agreed.
    #[error("{0}")]
    NotAgreed(String),
    /// The run's id.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The run file.
    #[error(transparent)]
    RunFile(#[from] RunFileError),
    /// This client's policy says no.
    #[error(transparent)]
    Policy(#[from] Decline),
    /// client.toml has no such data set.
    #[error("data set {name:?} is not here; client.toml has {}", names(.known))]
    NoDataset {
        /// The run's name for it.
        name: String,
        /// The data sets of client.toml.
        known: Vec<String>,
    },
    /// The data set cannot be used.
    #[error("data set {name:?}: {source}")]
    Data {
        /// Its name.
        name: String,
        /// What is wrong.
        source: Box<DataError>,
    },
    /// Every row is held out, or there are too few.
    #[error("data set {name:?} leaves no rows to train on; lower its `eval_fraction`")]
    NothingToTrain {
        /// Its name.
        name: String,
    },
    /// No row is held out.
    #[error("data set {name:?} holds no rows out to evaluate on; raise its `eval_fraction`")]
    NothingToEvaluate {
        /// Its name.
        name: String,
    },
    /// A person here has yet to decide.
    #[error("waiting for approval at the site")]
    Undecided,
    /// A person here said no.
    #[error("declined at the site")]
    Declined,
    /// The record of what was sent.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The run asks for a guarantee that makes no sense.
    #[error(transparent)]
    PrivacyTerms(#[from] PrivacyError),
    /// The run's guarantee cannot be kept with the data here.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The privacy ledger says no.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// This machine does not have the base model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The base model's sizes cannot be read.
    #[error(transparent)]
    ModelSizes(#[from] ModelSizesError),
    /// The method refused the run or its state.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// A blob could not be kept.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The update could not be kept.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The trainer failed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The coordinator refused a call.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A failure of a run with privacy. It may depend on what stands in the data, so the
    /// coordinator gets one and the same message for all of them.
    #[error(transparent)]
    Unserved(Box<Failure>),
    /// A thread of ours died.
    #[error("a task of the client died: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Failure {
    /// The failure as one of a run with privacy: what may depend on a single row is kept from the
    /// coordinator, which could ask again and again, with no noise on the answers.
    #[must_use]
    pub fn of_private_run(self) -> Self {
        match self {
            Self::Data { .. }
            | Self::NothingToTrain { .. }
            | Self::NothingToEvaluate { .. }
            | Self::Spool(SpoolError::Tensors { .. })
            | Self::Task(_)
            | Self::Work(
                WorkError::Data(_) | WorkError::NotFinite { .. } | WorkError::Engine(_) | WorkError::Panicked(_),
            ) => Self::Unserved(Box::new(self)),
            other => other,
        }
    }

    /// Whether the run has no room in this client's budget, or a person here said no, so that it
    /// need not be asked in the next attempt.
    pub fn ends_the_run_here(&self) -> bool {
        matches!(
            self,
            Self::Declined
                | Self::Ledger(
                    LedgerError::Budget { .. } | LedgerError::RunSpent { .. } | LedgerError::OtherPlan { .. }
                )
        )
    }

    /// The message for the coordinator. Paths, file names and what
    /// stands in the data stay in this machine's log.
    pub fn for_coordinator(&self) -> String {
        let log = "the client's log says more";
        match self {
            Self::Unserved(_) => "this client's data do not serve this run".to_owned(),
            Self::NoDataset { name, .. } => format!("data set {name:?} is not here"),
            Self::Data { name, source } => format!("data set {name:?} {}; {log}", data(source)),
            Self::Model(ModelError::Absent { name, digest, known, .. }) => {
                let known: Vec<String> = known.iter().map(|(_, digest)| digest.clone()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                format!("base model {name:?} with digest {digest} is not here; the digests here are {known}")
            }
            Self::Model(_) | Self::ModelSizes(_) | Self::Work(WorkError::Model { .. }) => {
                format!("the base model cannot be read; {log}")
            }
            Self::Method(
                MethodError::File(_)
                | MethodError::Io { .. }
                | MethodError::Adapter { .. }
                | MethodError::Missing { .. },
            )
            | Self::Work(WorkError::Method(_)) => format!("the adapter's state cannot be made; {log}"),
            Self::Ledger(LedgerError::Budget { .. }) => {
                format!("this client's privacy budget has no room for the run; {log}")
            }
            Self::Ledger(LedgerError::RunSpent { .. }) => "the run has spent its privacy budget here".to_owned(),
            Self::Ledger(_) => format!("the client's privacy ledger refuses; {log}"),
            Self::Cache(CacheError::NoSpace { .. }) | Self::Spool(SpoolError::NoSpace { .. }) => {
                format!("no space left on the client's disk; {log}")
            }
            Self::History(_) | Self::Cache(CacheError::Io { .. }) | Self::Spool(SpoolError::Io { .. }) => {
                format!("the client's disk fails; {log}")
            }
            Self::Work(WorkError::Engine(_) | WorkError::Panicked(_)) => format!("the training engine failed; {log}"),
            Self::Work(WorkError::Data(_)) => format!("the data set cannot be trained or evaluated on; {log}"),
            Self::Task(_) => format!("a task of the client died; {log}"),
            other => other.to_string(),
        }
    }
}

fn data(error: &DataError) -> &'static str {
    match error {
        DataError::Io { .. } | DataError::File { .. } => "cannot be read",
        DataError::Changed { .. } => "was changed while it was in use",
        DataError::UnknownFormat { .. } => "has an unknown format",
        DataError::Syntax { .. } | DataError::WrongKind { .. } => "has a row that cannot be read",
        DataError::Row { .. } => "has a row that cannot be used",
        DataError::TooManyBad { .. } => "has too many rows that cannot be used",
        DataError::MissingColumn { .. } => "lacks a column",
        DataError::UnknownRowFormat { .. } | DataError::RowFormatOfTask { .. } => {
            "has rows in a format that the task cannot use"
        }
        DataError::UnknownLabel { .. } => "has a label that the run does not know",
        DataError::NoRows { .. } => "has no rows",
        DataError::NoTask { .. } => "has columns that no task can use",
    }
}

fn names(names: &[String]) -> String {
    if names.is_empty() {
        return "no [[dataset]]".to_owned();
    }
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use rondo_data::Place;

    #[test]
    fn a_private_run_gets_one_message_for_all_faults_of_data() {
        let at =
            |problem: &str| DataError::Row { file: "a.tsv".into(), at: Place::Line(3), problem: problem.to_owned() };
        let data = |source| Failure::Data { name: "notes".to_owned(), source: Box::new(source) };
        let failures = [
            data(at("empty")),
            data(DataError::NoRows { file: "a.tsv".into() }),
            Failure::NothingToTrain { name: "notes".to_owned() },
            Failure::Work(WorkError::Data("row 3".to_owned())),
            Failure::Work(WorkError::NotFinite { round: 1, step: 2, what: "tensor a".to_owned() }),
            Failure::Work(WorkError::Engine("row 3".to_owned())),
            Failure::Work(WorkError::Panicked("row 3".to_owned())),
        ];
        for failure in failures {
            let whole = failure.to_string();
            let failure = failure.of_private_run();
            assert_eq!(failure.for_coordinator(), "this client's data do not serve this run");
            assert_eq!(failure.to_string(), whole, "the log has it all");
        }
        let stopped = Failure::Work(WorkError::Interrupted).of_private_run();
        assert!(matches!(stopped, Failure::Work(WorkError::Interrupted)));
    }

    #[test]
    fn what_leaves_the_machine_names_no_path_and_no_content() {
        let file = PathBuf::from("/srv/secret/patients.csv");
        let label = DataError::UnknownLabel {
            file: file.clone(),
            at: Place::Line(3),
            column: "diagnosis".to_owned(),
            label: "\"influenza\"".to_owned(),
            known: vec!["a".to_owned()],
        };
        let io = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let key = crate::spool::Key { run: rondo_proto::RunId::new("a").unwrap(), round: 1, attempt: 1 };
        let failures = [
            Failure::Data { name: "notes".to_owned(), source: Box::new(label) },
            Failure::Model(ModelError::Absent {
                name: "m".to_owned(),
                digest: "blake3:1".to_owned(),
                known: vec![(file.clone(), "blake3:2".to_owned())],
                differences: vec!["/srv/secret/config.json differs".to_owned()],
            }),
            Failure::Work(WorkError::Model { dir: file.clone(), problem: "x".to_owned() }),
            Failure::Work(WorkError::Engine("failed on /srv/secret influenza".to_owned())),
            Failure::Spool(SpoolError::NoSpace { key, dir: file.clone(), source: io() }),
            Failure::Method(MethodError::Io { path: file, source: io() }),
        ];
        for failure in failures {
            let message = failure.for_coordinator();
            for secret in ["/srv", "secret", "patients", "influenza", "diagnosis"] {
                assert!(!message.contains(secret), "{message}");
            }
        }
    }
}
