//! One JSON list of objects, cut into its elements without ever holding more than one.

use std::io::BufRead;

use super::{DataError, LONGEST, Record, RecordPlace, Sink, Source, Span};
use crate::error::Place;

/// Where the scan stands between elements.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// Before the list.
    Start,
    /// Behind `[`.
    First,
    /// Behind an element.
    Behind,
    /// Behind a comma.
    Next,
    /// Behind `]`.
    End,
}

/// An element being scanned.
#[derive(Default)]
struct Element {
    depth: u32,
    quoted: bool,
    escaped: bool,
    bytes: Vec<u8>,
    line: u64,
    offset: u64,
}

impl Element {
    /// Takes a byte; true when it was the element's last.
    fn take(&mut self, byte: u8) -> bool {
        self.bytes.push(byte);
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.quoted => self.escaped = true,
            b'"' => self.quoted = !self.quoted,
            b'{' | b'[' if !self.quoted => self.depth += 1,
            b'}' | b']' if !self.quoted => self.depth -= 1,
            _ => {}
        }
        self.depth == 0
    }
}

/// Reads element by element. What stands between the elements must be commas; an element that is
/// broken inside is a bad row as long as its brackets close.
pub(super) fn read(source: &Source, sink: &mut dyn Sink) -> Result<(), DataError> {
    let (mut reader, mut offset) = super::open(source)?;
    let mut at = At::Start;
    let mut line = 1_u64;
    let mut element = None::<Element>;
    let broken = |line: u64, problem: &str| {
        let file = source.path.clone();
        DataError::File { file, problem: format!("line {line}: {problem}") }
    };
    loop {
        let buffer = reader.fill_buf().map_err(|error| super::io(source, error))?;
        if buffer.is_empty() {
            break;
        }
        let length = buffer.len();
        for &byte in buffer {
            if let Some(open) = &mut element {
                if open.take(byte) {
                    let length = open.bytes.len() as u32;
                    let found =
                        RecordPlace { place: Place::Line(open.line), span: Span { offset: open.offset, length } };
                    sink.record(found, parse(source, &open.bytes, found.place))?;
                    (element, at) = (None, At::Behind);
                } else if open.bytes.len() > LONGEST {
                    return Err(broken(
                        open.line,
                        "an element of more than 64 MiB, or one whose brackets do not close",
                    ));
                }
            } else {
                at = match (at, byte) {
                    (_, b' ' | b'\t' | b'\r' | b'\n') => at,
                    (At::Start, b'[') => At::First,
                    (At::Start, _) => {
                        return Err(broken(line, "not a JSON list of objects: it does not start with `[`"));
                    }
                    (At::First | At::Next, b'{') => {
                        let mut open = Element { line, offset, ..Element::default() };
                        open.take(byte);
                        element = Some(open);
                        at
                    }
                    (At::Behind, b',') => At::Next,
                    (At::First | At::Behind, b']') => At::End,
                    (At::End, _) => return Err(broken(line, "goes on behind the list's `]`")),
                    (At::Behind, _) => return Err(broken(line, "expected `,` or `]` behind an element of the list")),
                    (At::Next, b']') => {
                        return Err(broken(line, "a trailing comma before the list's `]`; remove it"));
                    }
                    (At::First | At::Next, _) => {
                        return Err(broken(
                            line,
                            "an element of the list is not an object; every row is one, as in [{\"text\": ..}]",
                        ));
                    }
                };
            }
            offset += 1;
            line += u64::from(byte == b'\n');
        }
        reader.consume(length);
    }
    match at {
        At::End => Ok(()),
        At::Start => Ok(()), // empty: the caller reports a file without rows
        _ => Err(broken(
            element.map_or(line, |open| open.line),
            "the list ends within this element; the file is cut off",
        )),
    }
}

/// The object in an element's bytes.
pub(super) fn parse(source: &Source, element: &[u8], at: Place) -> Result<Record, DataError> {
    super::object::parse(source, element, at, |line, column| format!(" at line {line}, column {column} of the row"))
}
