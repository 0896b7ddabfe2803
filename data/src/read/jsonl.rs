//! One JSON object per line.

use std::io::{BufRead, Read};

use super::{DataError, LONGEST, Record, RecordPlace, Sink, Source, Span};
use crate::error::Place;

/// Reads row by row; blank lines are passed over.
pub(super) fn read(source: &Source, sink: &mut dyn Sink) -> Result<(), DataError> {
    let (mut reader, mut offset) = super::open(source)?;
    let io = |error| super::io(source, error);
    let mut buffer = Vec::new();
    let mut line = 0;
    loop {
        buffer.clear();
        let mut read = reader.by_ref().take(LONGEST as u64).read_until(b'\n', &mut buffer).map_err(io)? as u64;
        if read == 0 {
            return Ok(());
        }
        line += 1;
        let place = Place::Line(line);
        let found = RecordPlace { place, span: Span { offset, length: read as u32 } };
        if read == LONGEST as u64 && buffer.last() != Some(&b'\n') {
            read += reader.skip_until(b'\n').map_err(io)? as u64;
            sink.record(found, Err(super::too_long(source, place)))?;
        } else if !buffer.trim_ascii().is_empty() {
            sink.record(found, parse(source, &buffer, place))?;
        }
        offset += read;
    }
}

/// The object in a line.
pub(super) fn parse(source: &Source, line: &[u8], at: Place) -> Result<Record, DataError> {
    let text = std::str::from_utf8(line)
        .map_err(|error| super::syntax(source, at, format!("not UTF-8 at byte {}", error.valid_up_to() + 1)))?;
    serde_json::from_str(text).map_err(|error| {
        // A parser's own "line 1" would be taken for the file's; what is wrong as a whole is at no
        // column.
        let place = if error.column() == 0 { String::new() } else { format!(" at column {}", error.column()) };
        let error = error.to_string();
        let error = error.split(" at line ").next().unwrap_or(&error);
        super::syntax(source, at, format!("not a JSON object{place}: {error}"))
    })
}
