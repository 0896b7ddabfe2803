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
    super::object::parse(source, line, at, |_, column| format!(" at column {column}"))
}
