//! Metadata values.

use std::fmt;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number, of any of the format's widths, not negative.
    Unsigned(u64),
    /// A whole number of a signed type.
    Signed(i64),
    /// 32 bits.
    F32(f32),
    /// 64 bits.
    F64(f64),
    /// A flag.
    Bool(bool),
    /// A text.
    Text(String),
    /// What the file calls a text and is no UTF-8. Nobody may need it, so it is kept and refused
    /// when it is asked for.
    Bytes(Vec<u8>),
    /// Many of one kind.
    Array(Array),
}

/// Many values of one kind. Small ones keep their width: an array of bytes must not take eight
/// times its size.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // The names are the format's.
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    Text(Vec<String>),
    /// Texts of which at least one is no UTF-8.
    Bytes(Vec<Vec<u8>>),
}

/// Longest text that a message quotes.
const QUOTED: usize = 60;

impl Value {
    /// As a text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// As a whole number that is not negative.
    pub fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// As a finite number. 32 bits become the shortest decimal that they stand for, so that 1e-5 is
    /// 1e-5.
    pub fn float(&self) -> Option<f64> {
        match self {
            Self::F32(number) => number.to_string().parse().ok(),
            Self::F64(number) => Some(*number),
            Self::Unsigned(number) => Some(*number as f64),
            Self::Signed(number) => Some(*number as f64),
            _ => None,
        }
        .filter(|number| number.is_finite())
    }

    /// As a flag.
    pub fn flag(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// As texts.
    pub fn texts(&self) -> Option<&[String]> {
        match self {
            Self::Array(Array::Text(texts)) => Some(texts),
            _ => None,
        }
    }

    /// As 32-bit floating point numbers.
    pub fn floats(&self) -> Option<&[f32]> {
        match self {
            Self::Array(Array::F32(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// As whole numbers that are not negative: an array of them, or a single one.
    pub fn unsigned_many(&self) -> Option<Vec<u64>> {
        fn all<T: Copy>(numbers: &[T]) -> Option<Vec<u64>>
        where
            u64: TryFrom<T>,
        {
            numbers.iter().map(|number| u64::try_from(*number).ok()).collect()
        }
        match self {
            Self::Array(array) => match array {
                Array::U8(numbers) => all(numbers),
                Array::I8(numbers) => all(numbers),
                Array::U16(numbers) => all(numbers),
                Array::I16(numbers) => all(numbers),
                Array::U32(numbers) => all(numbers),
                Array::I32(numbers) => all(numbers),
                Array::U64(numbers) => all(numbers),
                Array::I64(numbers) => all(numbers),
                Array::F32(_) | Array::F64(_) | Array::Bool(_) | Array::Text(_) | Array::Bytes(_) => None,
            },
            single => single.unsigned().map(|number| vec![number]),
        }
    }
}

impl Array {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(all) => all.len(),
            Self::I8(all) => all.len(),
            Self::U16(all) => all.len(),
            Self::I16(all) => all.len(),
            Self::U32(all) => all.len(),
            Self::I32(all) => all.len(),
            Self::U64(all) => all.len(),
            Self::I64(all) => all.len(),
            Self::F32(all) => all.len(),
            Self::F64(all) => all.len(),
            Self::Bool(all) => all.len(),
            Self::Text(all) => all.len(),
            Self::Bytes(all) => all.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Value {
    /// For messages: short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(number) => write!(f, "{number}"),
            Self::Signed(number) => write!(f, "{number}"),
            Self::F32(number) => write!(f, "{number}"),
            Self::F64(number) => write!(f, "{number}"),
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Text(text) if text.chars().count() > QUOTED => {
                write!(f, "{:?}...", text.chars().take(QUOTED).collect::<String>())
            }
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => write!(f, "{} bytes that are not UTF-8", bytes.len()),
            Self::Array(Array::Bytes(texts)) => {
                let number = texts.iter().position(|text| std::str::from_utf8(text).is_err()).unwrap_or_default();
                write!(f, "an array of {} texts, of which number {number} is not UTF-8", texts.len())
            }
            Self::Array(array) => write!(f, "an array of {}", array.len()),
        }
    }
}
