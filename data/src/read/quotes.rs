//! Checks the quotes of a comma-separated file by RFC 4180, which the parser does not.
//!
//! The parser takes a quote that is never closed, or letters behind a closing quote, as part of the
//! field: rows would vanish into one text without a word.

use std::io::{self, Read};

/// A fault among the quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuoteFault {
    /// The quote that opens on this line is never closed.
    Open(u64),
    /// On this line something other than a delimiter or a line end follows a closing quote. The
    /// quote opens on the other line.
    Behind { line: u64, opens: u64 },
}

impl QuoteFault {
    /// What is wrong and how it is put right.
    pub(super) fn problem(self) -> String {
        match self {
            Self::Open(_) => {
                "a quote opens here and is never closed; close it, write a quote in a text as two (\"\"), or set `quotes = \
                 false`"
                    .to_owned()
            }
            Self::Behind { line, .. } => format!(
                "a quote opens here, and line {line} goes on behind its closing quote; write a quote in a text as two (\"\"), or \
                 set `quotes = false`"
            ),
        }
    }

    /// The line where the quote opens.
    pub(super) fn line(self) -> u64 {
        match self {
            Self::Open(line) => line,
            Self::Behind { opens, .. } => opens,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum At {
    FieldStart,
    Unquoted,
    Quoted,
    /// Behind a quote inside of a quoted field: it closes the field or is the first of two.
    Quote,
}

/// Reads a file and hands its bytes on while it watches the quotes. A fault ends the reading.
pub(super) struct QuoteCheck<R> {
    inner: R,
    delimiter: u8,
    at: At,
    line: u64,
    opens: u64,
    fault: Option<QuoteFault>,
}

impl<R: Read> QuoteCheck<R> {
    pub(super) fn new(inner: R, delimiter: u8) -> Self {
        Self { inner, delimiter, at: At::FieldStart, line: 1, opens: 0, fault: None }
    }

    /// The first fault so far.
    pub(super) fn fault(&self) -> Option<QuoteFault> {
        self.fault
    }

    fn watch(&mut self, byte: u8) -> Option<QuoteFault> {
        self.at = match (self.at, byte) {
            (At::FieldStart, b'"') => {
                self.opens = self.line;
                At::Quoted
            }
            (At::Quoted, b'"') => At::Quote,
            (At::Quote, b'"') | (At::Quoted, _) => At::Quoted,
            (_, b'\n' | b'\r') => At::FieldStart,
            (_, byte) if byte == self.delimiter => At::FieldStart,
            (At::Quote, _) => return Some(QuoteFault::Behind { line: self.line, opens: self.opens }),
            (At::FieldStart | At::Unquoted, _) => At::Unquoted,
        };
        self.line += u64::from(byte == b'\n');
        None
    }
}

impl<R: Read> Read for QuoteCheck<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.fault.is_some() {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        for &byte in &buffer[..read] {
            self.fault = self.watch(byte);
            if self.fault.is_some() {
                return Ok(0);
            }
        }
        if read == 0 && !buffer.is_empty() && self.at == At::Quoted {
            self.fault = Some(QuoteFault::Open(self.opens));
        }
        Ok(read)
    }
}
