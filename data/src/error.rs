//! What can be wrong with a data file. Messages name the place and say how to fix it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rondo_proto::run_file::TaskKind;
use rondo_proto::wording::Advice;

use super::{RowFormat, task_spec};

/// Where a row stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Line on which it starts, from 1.
    Line(u64),
    /// Row, from 1, of a file without lines.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(out, ":{line}"),
            Self::Row(row) => write!(out, ", row {row}"),
        }
    }
}

/// Why a data file, or a row of it, was refused.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be opened or read.
    #[error("{}", unread(.file, .source))]
    Io {
        /// The data file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Neither `format` nor the extension says how to read it.
    #[error(
        "{}: unknown format; name the file .jsonl, .json, .csv, .tsv or .parquet, or {} \"jsonl\", \
         \"json\", \"csv\", \"tsv\", \"parquet\"",
        .file.display(), Advice::ChooseFormat
    )]
    UnknownFormat {
        /// The data file.
        file: PathBuf,
    },
    /// The file as a whole is not what its format says.
    #[error("{}: {problem}", .file.display())]
    File {
        /// The data file.
        file: PathBuf,
        /// What is wrong and how to fix it.
        problem: String,
    },
    /// It was written to while its rows were in use.
    #[error("{}: changed since it was indexed; leave data files alone while a run uses them, and start the work again", .file.display())]
    Changed {
        /// The data file.
        file: PathBuf,
    },
    /// A row that is not JSON, has another number of fields than the header, or is not UTF-8.
    #[error("{}{at}: {problem}", .file.display())]
    Syntax {
        /// The data file.
        file: PathBuf,
        /// The row.
        at: Place,
        /// What is wrong.
        problem: String,
    },
    /// A column that the row format needs is not there.
    #[error("{}{at}: missing column `{column}`; there are {}; {}", .file.display(), list(.there), Advice::NameColumn)]
    MissingColumn {
        /// The data file.
        file: PathBuf,
        /// The row, or the header.
        at: Place,
        /// The column looked for.
        column: String,
        /// The columns of the header, or the keys of this JSON row.
        there: Vec<String>,
    },
    /// The columns fit none of the row formats that the task can use.
    #[error(
        "{}{at}: the columns {} fit no row format that {} can use: {}; {}",
        .file.display(), list(.there), a_run(*.kind), task_spec::described(*.kind), Advice::NameColumns
    )]
    UnknownRowFormat {
        /// The data file.
        file: PathBuf,
        /// The row, or the header.
        at: Place,
        /// The columns there are.
        there: Vec<String>,
        /// What the rows are for.
        kind: TaskKind,
    },
    /// The columns fit none of the row formats that any task can use.
    #[error(
        "{}{at}: no task can use rows with the columns {}; {}",
        .file.display(), list(.there), Advice::NameColumns
    )]
    NoTask {
        /// The data file.
        file: PathBuf,
        /// The row, or the header.
        at: Place,
        /// The columns there are.
        there: Vec<String>,
    },
    /// `rows` names a row format that the task cannot use.
    #[error(
        "{}: rows = \"{}\" does not serve {}, which takes {}",
        .file.display(), .rows.name(), a_run(*.kind), task_spec::names(*.kind)
    )]
    RowFormatOfTask {
        /// The data file.
        file: PathBuf,
        /// What `rows` says.
        rows: RowFormat,
        /// What the rows are for.
        kind: TaskKind,
    },
    /// A value of the wrong kind.
    #[error("{}{at}: column `{column}` holds {found}, expected {expected}", .file.display())]
    WrongKind {
        /// The data file.
        file: PathBuf,
        /// The row.
        at: Place,
        /// The column (JSON key).
        column: String,
        /// What it holds.
        found: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A label that the run does not have.
    #[error(
        "{}{at}: column `{column}`: unknown label {label}; the labels are {} ({})",
        .file.display(), list(.known), Advice::MapLabels
    )]
    UnknownLabel {
        /// The data file.
        file: PathBuf,
        /// The row.
        at: Place,
        /// The label column.
        column: String,
        /// The label in the file, in quotes, and what `labels` made of it when it is listed there.
        label: String,
        /// The labels there are.
        known: Vec<String>,
    },
    /// A row whose values are of the right kind and still cannot be used.
    #[error("{}{at}: {problem}", .file.display())]
    Row {
        /// The data file.
        file: PathBuf,
        /// The row.
        at: Place,
        /// What is wrong.
        problem: String,
    },
    /// More rows are bad than may be skipped.
    #[error("{}: {bad} of {seen} rows cannot be used, more than the share {}; the first is {first}", .file.display(), Advice::MostBadRows(*.most))]
    TooManyBad {
        /// The data file.
        file: PathBuf,
        /// Rows that cannot be used.
        bad: u64,
        /// Rows looked at.
        seen: u64,
        /// The share that may be bad.
        most: f64,
        /// What is wrong with the first of them.
        first: Box<DataError>,
    },
    /// Nothing to train on.
    #[error("{}: no rows", .file.display())]
    NoRows {
        /// The data file.
        file: PathBuf,
    },
}

impl DataError {
    /// True where one row is at fault, which may be skipped, and not the file.
    pub fn is_of_a_row(&self) -> bool {
        match self {
            Self::Syntax { .. }
            | Self::MissingColumn { .. }
            | Self::UnknownRowFormat { .. }
            | Self::WrongKind { .. }
            | Self::UnknownLabel { .. }
            | Self::Row { .. } => true,
            Self::Io { .. }
            | Self::UnknownFormat { .. }
            | Self::File { .. }
            | Self::Changed { .. }
            | Self::NoTask { .. }
            | Self::RowFormatOfTask { .. }
            | Self::TooManyBad { .. }
            | Self::NoRows { .. } => false,
        }
    }
}

fn unread(file: &Path, source: &io::Error) -> String {
    let file = file.display();
    match source.kind() {
        io::ErrorKind::NotFound => {
            format!("the data file {file} is not there; {}", Advice::CorrectPath)
        }
        _ => format!("{file}: {source}"),
    }
}

fn a_run(kind: TaskKind) -> String {
    let article = if kind.name().starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {} run", kind.name())
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
