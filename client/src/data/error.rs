//! What can be wrong with a data file, told so that one can go to the place and mend it.

use std::io;
use std::path::PathBuf;

/// Why a data file was refused.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be opened or read.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The data file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Neither `format` nor the extension says how to read it.
    #[error(
        "{}: unknown format; name the file .jsonl, .csv or .tsv, or set `format` to one of \"jsonl\", \"csv\", \"tsv\"",
        .file.display()
    )]
    UnknownFormat {
        /// The data file.
        file: PathBuf,
    },
    /// A row that is not JSON, has another number of fields than the header, or is not UTF-8.
    #[error("{}:{line}: {problem}", .file.display())]
    Syntax {
        /// The data file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// The column that holds the text or the label is not there.
    #[error("{}:{line}: missing column `{column}`; there are {}", .file.display(), list(.there))]
    MissingColumn {
        /// The data file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The column looked for.
        column: String,
        /// The columns of the header, or the keys of this JSON row.
        there: Vec<String>,
    },
    /// A JSON value of the wrong kind.
    #[error("{}:{line}: column `{column}` holds {found}, expected {expected}", .file.display())]
    WrongKind {
        /// The data file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The column (JSON key).
        column: String,
        /// What it holds.
        found: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A label that the run does not have.
    #[error(
        "{}:{line}: column `{column}`: unknown label {label}; the labels are {} (map others under [dataset.labels] or \
         leave their rows out with `skip_labels`)",
        .file.display(),
        list(.known)
    )]
    UnknownLabel {
        /// The data file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The label column.
        column: String,
        /// The label in the file, in quotes, and what `labels` made of it when it is listed there.
        label: String,
        /// The labels there are.
        known: Vec<String>,
    },
    /// Nothing to train on.
    #[error("{}: no rows", .file.display())]
    NoRows {
        /// The data file.
        file: PathBuf,
    },
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
