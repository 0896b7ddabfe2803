//! Comma- and tab-separated files, with or without a header line.

use std::fs::File;
use std::io::{BufRead, BufReader};

use ::csv::{ErrorKind, ReaderBuilder, StringRecord};

use super::{DataError, Format, Row, Source};

/// Reads row by row.
pub(super) fn read(
    source: &Source,
    format: Format,
    take: &mut dyn FnMut(Row<'_>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let io = |error| DataError::Io { file: source.path.clone(), source: error };
    let mut input = BufReader::new(File::open(&source.path).map_err(io)?);
    if input.fill_buf().map_err(io)?.starts_with("\u{feff}".as_bytes()) {
        input.consume("\u{feff}".len());
    }
    let tabs = format == Format::Tsv;
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .delimiter(if tabs { b'\t' } else { b',' })
        .quoting(source.quotes.unwrap_or(!tabs))
        .from_reader(input);

    let mut record = StringRecord::new();
    let columns = match &source.columns {
        Some(columns) => columns.clone(),
        None => {
            if !reader.read_record(&mut record).map_err(|error| translate(source, error))? {
                return Ok(());
            }
            record.iter().map(|name| name.trim().to_owned()).collect()
        }
    };
    let find = |column: &str| {
        columns.iter().position(|name| name == column).ok_or_else(|| DataError::MissingColumn {
            file: source.path.clone(),
            line: 1,
            column: column.to_owned(),
            there: columns.clone(),
        })
    };
    let (text, label) = (find(&source.text)?, find(&source.label)?);
    while reader.read_record(&mut record).map_err(|error| translate(source, error))? {
        let line = record.position().map_or(0, ::csv::Position::line);
        if record.len() != columns.len() {
            let (found, expected) = (record.len(), columns.len());
            return Err(DataError::Syntax {
                file: source.path.clone(),
                line,
                problem: format!("{found} fields where the columns are {expected}"),
            });
        }
        take(Row { line, text: &record[text], label: record[label].trim() })?;
    }
    Ok(())
}

fn translate(source: &Source, error: ::csv::Error) -> DataError {
    let file = source.path.clone();
    let line = error.position().map_or(0, ::csv::Position::line);
    match error.into_kind() {
        ErrorKind::Io(source) => DataError::Io { file, source },
        ErrorKind::Utf8 { err, .. } => {
            DataError::Syntax { file, line, problem: format!("field {} is not UTF-8", err.field() + 1) }
        }
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            DataError::Syntax { file, line, problem: format!("{len} fields where the line before has {expected_len}") }
        }
        other => DataError::Syntax { file, line, problem: format!("{other:?}") },
    }
}
