//! Why a ledger refuses.

use std::io;
use std::path::{Path, PathBuf};

use crate::calibration::CalibrationError;
use crate::event::AccountingError;

/// What helps where entries were changed or lost.
const REMEDY: &str = "nothing is released until its newest copy is restored; whether a copy is the newest, its head shows \
                    beside those that `rondo privacy ledger RUN` shows";

/// Why a ledger refuses. Nothing was entered then.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file is not what was written.
    #[error("the privacy ledger was changed: line {line}: {problem}; {remedy}", remedy = REMEDY)]
    Edited {
        /// The line, from 1.
        line: u64,
        /// What is wrong there.
        problem: String,
    },
    /// Entries that were answered for are gone: the last lines were
    /// dropped, or an older copy is in the file's place.
    #[error(
        "the privacy ledger {} has lost entries: it has {found}, and {counted} were entered (head {head}); {remedy}",
        .path.display(),
        remedy = REMEDY
    )]
    Behind {
        /// The file.
        path: PathBuf,
        /// Entries in it.
        found: u64,
        /// Entries by its head file.
        counted: u64,
        /// The head there.
        head: String,
    },
    /// The ledger and its head are gone from a folder that had them.
    #[error(
        "{} and {} are both missing, though {} shows that this folder had a ledger: what was spent is not known; restore both \
         from a backup; to begin anew and forget what was spent, start once with --new-ledger",
        .ledger.display(), .ledger.with_extension("head").display(), .evidence.display()
    )]
    BothLost {
        /// The ledger.
        ledger: Box<Path>,
        /// The file that shows that there was one.
        evidence: Box<Path>,
    },
    /// The whole file is gone.
    #[error(
        "the privacy ledger {} is not there, and {counted} entries were made in it (head {head}); {remedy}",
        .path.display(),
        remedy = REMEDY
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// Entries by its head file.
        counted: u64,
        /// The head there.
        head: String,
    },
    /// A ledger with entries and without its head file: nothing shows whether it is whole.
    #[error(
        "{} {problem}, so that nothing shows whether the privacy ledger beside it, of {entries} entries, is whole; \
         restore it, or, if `rondo privacy ledger RUN` shows no later head than this one, write this line into it: {line}",
        .path.display()
    )]
    NoHead {
        /// The head file.
        path: PathBuf,
        /// "is not there", "is damaged".
        problem: &'static str,
        /// Entries of the ledger.
        entries: u64,
        /// What the head file would say of this ledger.
        line: String,
    },
    /// A whole plan does not fit.
    #[error(
        "privacy domain {domain:?} allows epsilon {limit} at delta {delta:e}: {spent:.4} is spent or promised to runs, and \
         with this run it would be {would_be:.4}"
    )]
    Budget {
        /// The domain.
        domain: String,
        /// Its budget.
        limit: f64,
        /// At this delta.
        delta: f64,
        /// Spent or reserved.
        spent: f64,
        /// With the run's whole plan.
        would_be: f64,
    },
    /// A run has nothing left.
    #[error(
        "run {run} has spent its privacy budget here: epsilon {spent:.4} of {limit}, and one more round would make it \
         {would_be:.4}"
    )]
    RunSpent {
        /// The run.
        run: String,
        /// The run's epsilon.
        limit: f64,
        /// What it has cost.
        spent: f64,
        /// What it would cost.
        would_be: f64,
    },
    /// Spending for a run that nothing is reserved for.
    #[error("nothing is reserved for run {run}")]
    NotReserved {
        /// The run.
        run: String,
    },
    /// A run that was reserved with another plan.
    #[error(
        "run {run} was reserved with another plan: {differences}; put the data set and client.toml back as they were, or \
         leave the run"
    )]
    OtherPlan {
        /// The run.
        run: String,
        /// What differs, as it was and as it is.
        differences: String,
    },
    /// An earlier write failed in a way that leaves the file's state unknown.
    #[error("an earlier write to the privacy ledger failed; restart to read it anew")]
    Poisoned,
    /// The file cannot be read or written.
    #[error("privacy ledger {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An entry cannot be laid out as JSON.
    #[error("a ledger entry cannot be written: {problem}")]
    Unwritable {
        /// Why.
        problem: String,
    },
    /// A number out of range.
    #[error(transparent)]
    Accounting(#[from] AccountingError),
    /// A number out of range.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
}

pub(super) fn io_error(path: &Path) -> impl Fn(io::Error) -> LedgerError + use<> {
    let path = path.to_owned();
    move |source| LedgerError::Io { path: path.clone(), source }
}
