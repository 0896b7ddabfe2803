//! Reads the format's primitive values: never more bytes than the file or the limit on headers has
//! left.

use std::io::{self, Read};

use super::value::{Array, Value};

/// Largest header that is read, in bytes. Vocabularies of a quarter of a million tokens with their
/// merges need some 20 MB.
pub const MAX_HEADER_BYTES: u64 = 128 << 20;
/// Most texts of an array; the largest vocabularies have a quarter of a million tokens.
const MAX_TEXTS: u64 = 1 << 22;

/// Why parsing stopped; the caller adds the file's name.
pub(super) enum Fault {
    Io(io::Error),
    Problem(String),
}

impl Fault {
    pub(super) fn problem(problem: impl Into<String>) -> Self {
        Self::Problem(problem.into())
    }
}

/// A source and how much of it was read.
pub(super) struct Parser<R> {
    source: R,
    position: u64,
    bytes: u64,
}

/// Numbers of a fixed width.
trait Number: Sized {
    const BYTES: u64;
    fn of(bytes: &[u8]) -> Self;
}

macro_rules! numbers {
    ($($kind:ty),*) => {$(
        impl Number for $kind {
            const BYTES: u64 = size_of::<$kind>() as u64;
            fn of(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$kind>()];
                array.copy_from_slice(bytes);
                Self::from_le_bytes(array)
            }
        }
    )*};
}
numbers!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl<R: Read> Parser<R> {
    /// A source of so many bytes.
    pub(super) fn new(source: R, bytes: u64) -> Self {
        Self { source, position: 0, bytes }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Refuses what goes beyond the file or the limit, before any memory is taken for it.
    fn claim(&mut self, bytes: u64, what: &str) -> Result<(), Fault> {
        let end = self.position.checked_add(bytes);
        match end {
            Some(end) if end <= self.bytes.min(MAX_HEADER_BYTES) => {
                self.position = end;
                Ok(())
            }
            Some(end) if end <= self.bytes => {
                Err(Fault::problem(format!("its header is larger than {MAX_HEADER_BYTES} bytes, at {what}")))
            }
            _ => Err(Fault::problem(format!("the file ends within {what}; is it cut short?"))),
        }
    }

    fn raw(&mut self, bytes: u64, what: &str) -> Result<Vec<u8>, Fault> {
        self.claim(bytes, what)?;
        let mut raw = vec![0; bytes as usize];
        self.source.read_exact(&mut raw).map_err(Fault::Io)?;
        Ok(raw)
    }

    /// So many bytes.
    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        self.claim(N as u64, what)?;
        let mut raw = [0; N];
        self.source.read_exact(&mut raw).map_err(Fault::Io)?;
        Ok(raw)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A number of things to come.
    pub(super) fn count(&mut self, what: &str, most: u64) -> Result<u64, Fault> {
        let count = self.u64(&format!("the number of {what}"))?;
        if count > most {
            return Err(Fault::problem(format!("it claims {count} {what}; at most {most} are read")));
        }
        Ok(count)
    }

    /// The bytes of a text behind their length.
    fn text(&mut self, what: &str, most: u64) -> Result<Vec<u8>, Fault> {
        let length = self.u64(what)?;
        if length > most {
            return Err(Fault::problem(format!("{what} has {length} bytes; at most {most} are read")));
        }
        self.raw(length, what)
    }

    /// A metadata key. One that is not UTF-8 is no key that anybody asks for; its odd bytes are
    /// spelled out.
    pub(super) fn key(&mut self, what: &str, most: u64) -> Result<String, Fault> {
        let raw = self.text(what, most)?;
        Ok(String::from_utf8(raw).unwrap_or_else(|error| error.as_bytes().escape_ascii().to_string()))
    }

    /// The name of a tensor.
    pub(super) fn name(&mut self, what: &str, most: u64) -> Result<String, Fault> {
        String::from_utf8(self.text(what, most)?).map_err(|_| Fault::problem(format!("{what} is not UTF-8")))
    }

    /// A value behind its type.
    pub(super) fn value(&mut self, key: &str) -> Result<Value, Fault> {
        let what = format!("metadata {key:?}");
        let kind = self.u32(&what)?;
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.number::<u8>(&what)?)),
            1 => Value::Signed(i64::from(self.number::<i8>(&what)?)),
            2 => Value::Unsigned(u64::from(self.number::<u16>(&what)?)),
            3 => Value::Signed(i64::from(self.number::<i16>(&what)?)),
            4 => Value::Unsigned(u64::from(self.number::<u32>(&what)?)),
            5 => Value::Signed(i64::from(self.number::<i32>(&what)?)),
            6 => Value::F32(self.number(&what)?),
            7 => Value::Bool(flag(self.number(&what)?, &what)?),
            8 => match String::from_utf8(self.text(&what, u64::MAX)?) {
                Ok(text) => Value::Text(text),
                Err(error) => Value::Bytes(error.into_bytes()),
            },
            9 => Value::Array(self.values(&what)?),
            10 => Value::Unsigned(self.number(&what)?),
            11 => Value::Signed(self.number(&what)?),
            12 => Value::F64(self.number(&what)?),
            _ => return Err(Fault::problem(format!("{what} has the unknown type {kind}"))),
        })
    }

    fn number<T: Number>(&mut self, what: &str) -> Result<T, Fault> {
        let raw: [u8; 8] = {
            let mut wide = [0; 8];
            self.claim(T::BYTES, what)?;
            self.source.read_exact(&mut wide[..T::BYTES as usize]).map_err(Fault::Io)?;
            wide
        };
        Ok(T::of(&raw[..T::BYTES as usize]))
    }

    fn numbers<T: Number>(&mut self, count: u64, what: &str) -> Result<Vec<T>, Fault> {
        let raw = self.raw(count.saturating_mul(T::BYTES), what)?;
        Ok(raw.chunks_exact(T::BYTES as usize).map(T::of).collect())
    }

    /// An array behind its type and length.
    fn values(&mut self, what: &str) -> Result<Array, Fault> {
        let kind = self.u32(what)?;
        let count = self.u64(what)?;
        Ok(match kind {
            0 => Array::U8(self.numbers(count, what)?),
            1 => Array::I8(self.numbers(count, what)?),
            2 => Array::U16(self.numbers(count, what)?),
            3 => Array::I16(self.numbers(count, what)?),
            4 => Array::U32(self.numbers(count, what)?),
            5 => Array::I32(self.numbers(count, what)?),
            6 => Array::F32(self.numbers(count, what)?),
            7 => {
                let raw = self.raw(count, what)?;
                Array::Bool(raw.into_iter().map(|byte| flag(byte, what)).collect::<Result<_, _>>()?)
            }
            8 => {
                // An empty text takes 8 bytes in the file and 24 in memory, so their number is
                // limited as well.
                if count > MAX_TEXTS {
                    return Err(Fault::problem(format!("{what} has {count} texts; at most {MAX_TEXTS} are read")));
                }
                let mut texts = Vec::new();
                for _ in 0..count {
                    texts.push(self.text(what, u64::MAX)?);
                }
                if texts.iter().any(|text| std::str::from_utf8(text).is_err()) {
                    return Ok(Array::Bytes(texts));
                }
                Array::Text(texts.into_iter().filter_map(|text| String::from_utf8(text).ok()).collect())
            }
            9 => return Err(Fault::problem(format!("{what} is an array of arrays; no known model has one"))),
            10 => Array::U64(self.numbers(count, what)?),
            11 => Array::I64(self.numbers(count, what)?),
            12 => Array::F64(self.numbers(count, what)?),
            _ => return Err(Fault::problem(format!("{what} is an array of the unknown type {kind}"))),
        })
    }
}

fn flag(byte: u8, what: &str) -> Result<bool, Fault> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Fault::problem(format!("{what} is a flag of value {other}; 0 and 1 are allowed"))),
    }
}
