//! Reads the header of a GGUF file (versions 2 and 3): metadata, and where each tensor lies.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. A file may come from
//! anywhere: every count and length in it is compared with what is left of the file before it is
//! used, and nothing panics. Memory stays below 16 times the file's size and 1 MiB more. Texts are
//! decoded, but only one that is asked for must be UTF-8. Values of tensors are not read here.

mod block;
mod parser;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

pub use block::BlockKind;
pub use parser::MAX_HEADER_BYTES;
pub use value::{Array, Value};

use rondo_proto::placeholder::Placeholder;

use parser::{Fault, Parser};

/// Most tensors in a file.
const MAX_TENSORS: u64 = 100_000;
/// Most metadata entries in a file.
const MAX_ENTRIES: u64 = 10_000;
/// Longest name of a tensor, in bytes.
const MAX_NAME_BYTES: u64 = 255;
/// Longest metadata key, in bytes, by the format's definition.
const MAX_KEY_BYTES: u64 = 65_535;
/// Most dimensions of a tensor, as in GGML.
const MAX_DIMENSIONS: u32 = 4;
/// Where tensors start unless `general.alignment` says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Why a GGUF file was refused.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no GGUF file, or a damaged one, or one of a kind that is not read.
    #[error("{path}: {problem}", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and how to fix it where that is known.
        problem: String,
    },
}

/// A checked header.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The file, for messages.
    pub path: PathBuf,
    /// 2 or 3.
    pub version: u32,
    /// Tensors start at multiples of this many bytes.
    pub alignment: u64,
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors by where they lie; they do not overlap and lie inside of the file.
    pub tensors: Vec<TensorInfo>,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the file, for example "blk.0.attn_q.weight".
    pub name: String,
    /// Row-major shape: a matrix is `[rows, columns]`. The file lists sizes the other way round.
    pub shape: Vec<u64>,
    /// How its numbers are packed. Every row consists of whole blocks.
    pub kind: BlockKind,
    /// Where its bytes begin, from the start of the file.
    pub offset: u64,
    /// How many bytes it takes.
    pub bytes: u64,
}

impl TensorInfo {
    /// How many numbers it holds.
    pub fn numbers(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Length of a row: the last size.
    pub fn columns(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// Reads and checks the header of a file.
///
/// # Errors
/// [`GgufError`], for whatever is not as the format defines it or goes beyond the limits above.
pub fn read(path: &Path) -> Result<Header, GgufError> {
    let io_error = |source| GgufError::Io { path: path.to_owned(), source };
    if let Some(placeholder) = Placeholder::at(path).map_err(io_error)? {
        return Err(GgufError::Invalid { path: path.to_owned(), problem: format!("it {placeholder}") });
    }
    let file = File::open(path).map_err(io_error)?;
    let bytes = file.metadata().map_err(io_error)?.len();
    parse(BufReader::with_capacity(1 << 16, file), bytes, path)
}

/// The same for any source of `bytes` bytes; `path` is for messages.
///
/// # Errors
/// As [`read`].
pub fn parse(source: impl Read, bytes: u64, path: &Path) -> Result<Header, GgufError> {
    let mut parser = Parser::new(source, bytes);
    header(&mut parser, bytes, path).map_err(|fault| match fault {
        Fault::Io(source) => GgufError::Io { path: path.to_owned(), source },
        Fault::Problem(problem) => GgufError::Invalid { path: path.to_owned(), problem },
    })
}

fn header(parser: &mut Parser<impl Read>, bytes: u64, path: &Path) -> Result<Header, Fault> {
    let magic: [u8; 4] = parser.array("the magic number")?;
    if &magic != b"GGUF" {
        return Err(Fault::problem("it is no GGUF file: it does not begin with \"GGUF\""));
    }
    let version = parser.u32("the version")?;
    // Version numbers are small, so one that looks large is a small one in the other order.
    if version & 0xffff == 0 && version != 0 {
        return Err(Fault::problem("it is a big-endian GGUF file; only little-endian ones are read"));
    }
    if !(2..=3).contains(&version) {
        return Err(Fault::problem(format!("it has GGUF version {version}; versions 2 and 3 are read")));
    }
    let tensors = parser.count("tensors", MAX_TENSORS)?;
    let entries = parser.count("metadata entries", MAX_ENTRIES)?;

    let mut metadata = BTreeMap::new();
    for number in 0..entries {
        let key = parser.key(&format!("metadata key {number}"), MAX_KEY_BYTES)?;
        let value = parser.value(&key)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(Fault::problem(format!("metadata key {key:?} comes twice")));
        }
    }
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(value) => {
            value.unsigned().filter(|bytes| bytes.is_power_of_two() && *bytes <= 1 << 20).ok_or_else(|| {
                Fault::problem(format!("general.alignment is {value}; it must be a power of two, at most 1048576"))
            })?
        }
    };

    let mut infos = Vec::new();
    for number in 0..tensors {
        infos.push(tensor(parser, number)?);
    }
    let data = parser.position().next_multiple_of(alignment);
    place(&mut infos, data, alignment, bytes)?;
    Ok(Header { path: path.to_owned(), version, alignment, metadata, tensors: infos })
}

/// One tensor's info, with its offset from the start of the tensors' part.
fn tensor(parser: &mut Parser<impl Read>, number: u64) -> Result<TensorInfo, Fault> {
    let name = parser.name(&format!("the name of tensor {number}"), MAX_NAME_BYTES)?;
    let problem = |problem: String| Fault::problem(format!("tensor {name:?} {problem}"));
    let dimensions = parser.u32(&name)?;
    if dimensions > MAX_DIMENSIONS {
        return Err(problem(format!("has {dimensions} dimensions, at most {MAX_DIMENSIONS} are allowed")));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(parser.u64(&name)?);
    }
    shape.reverse();
    let id = parser.u32(&name)?;
    let offset = parser.u64(&name)?;
    let kind = BlockKind::of_id(id).ok_or_else(|| {
        problem(format!("is {}, which is not read; read are {}", block::describe_id(id), BlockKind::supported()))
    })?;
    let numbers = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size)).unwrap_or(0);
    if numbers == 0 {
        return Err(problem(format!("has shape {shape:?}, which no tensor can have")));
    }
    let columns = shape.last().copied().unwrap_or(1);
    if columns % kind.numbers() != 0 {
        return Err(problem(format!("has rows of {columns} numbers; {kind} packs {} at a time", kind.numbers())));
    }
    let bytes = (numbers / kind.numbers()).checked_mul(kind.bytes());
    let bytes = bytes.ok_or_else(|| problem(format!("has shape {shape:?}, more than any file holds")))?;
    Ok(TensorInfo { name, shape, kind, offset, bytes })
}

/// Sorts the tensors by place, checks that they lie in the file one after the other and makes their
/// offsets absolute.
fn place(infos: &mut [TensorInfo], data: u64, alignment: u64, file: u64) -> Result<(), Fault> {
    let mut names = BTreeSet::new();
    if let Some(twice) = infos.iter().find(|info| !names.insert(info.name.as_str())) {
        return Err(Fault::problem(format!("tensor {:?} comes twice", twice.name)));
    }
    infos.sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
    let mut before: Option<(&str, u64)> = None;
    for info in infos {
        let problem = |problem: String| Fault::problem(format!("tensor {:?} {problem}", info.name));
        if info.offset % alignment != 0 {
            return Err(problem(format!("starts at {}, which is no multiple of {alignment}", info.offset)));
        }
        let start = data.checked_add(info.offset);
        let end = start.and_then(|start| start.checked_add(info.bytes)).filter(|end| *end <= file);
        let (Some(start), Some(end)) = (start, end) else {
            let at = info.offset;
            return Err(problem(format!(
                "ends outside of the file ({} bytes from {at} after {data}, the file has {file}); is it cut short?",
                info.bytes
            )));
        };
        if let Some((other, _)) = before.filter(|(_, end)| *end > start) {
            return Err(problem(format!("overlaps tensor {other:?}")));
        }
        info.offset = start;
        before = Some((&info.name, end));
    }
    Ok(())
}

impl Header {
    /// The metadata under a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The text under a key, if there is one.
    ///
    /// # Errors
    /// A value that is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.get(key).map(|value| value.text().ok_or_else(|| self.unfit(key, "a text"))).transpose()
    }

    /// The whole number under a key, not negative, if there is one.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.get(key).map(|value| value.unsigned().ok_or_else(|| self.unfit(key, "a whole number"))).transpose()
    }

    /// The number under a key, if there is one.
    ///
    /// # Errors
    /// A value of another kind, infinite or not a number.
    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.get(key).map(|value| value.float().ok_or_else(|| self.unfit(key, "a finite number"))).transpose()
    }

    /// The flag under a key, if there is one.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.get(key).map(|value| value.flag().ok_or_else(|| self.unfit(key, "true or false"))).transpose()
    }

    /// The texts under a key, if there are any.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.get(key).map(|value| value.texts().ok_or_else(|| self.unfit(key, "an array of texts"))).transpose()
    }

    /// An error that names this file.
    pub fn invalid(&self, problem: impl Into<String>) -> GgufError {
        GgufError::Invalid { path: self.path.clone(), problem: problem.into() }
    }

    fn unfit(&self, key: &str, wanted: &str) -> GgufError {
        let value = self.get(key).map(ToString::to_string).unwrap_or_default();
        self.invalid(format!("metadata {key:?} is {value}; it must be {wanted}"))
    }
}

#[cfg(test)]
pub(crate) mod tests;
