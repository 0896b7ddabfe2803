//! Why a ledger refuses.

use std::io;
use std::path::PathBuf;

use crate::accountant::AccountingError;
use crate::calibration::CalibrationError;

/// Why a ledger refuses. Nothing was entered then.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file is not what was written.
    #[error(
        "the privacy ledger was changed: line {line}: {problem}; nothing is released until the file is restored from a copy"
    )]
    Edited {
        /// The line, from 1.
        line: u64,
        /// What is wrong there.
        problem: String,
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
        "run {run} was reserved with another plan: the number of training examples or the run file has changed since"
    )]
    OtherPlan {
        /// The run.
        run: String,
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
