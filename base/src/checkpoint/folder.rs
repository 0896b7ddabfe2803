//! A Hugging Face folder: config.json and the weights in one or more .safetensors files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rondo_proto::manifest::{self, Located};
use rondo_proto::placeholder::Placeholder;

use super::check::{check, list};
use super::{Checkpoint, NumberFormat, StoredTensor};
use crate::config::{ConfigValues, ModelConfig};
use crate::error::BaseError;
use crate::files::{CONFIG_FILE, TOKENIZER_FILE};
use crate::index::{INDEX_FILE, Index};
use crate::tensors::{HEAD, embedding};
use crate::weight_files::WeightFiles;

/// Bytes of two tensors that are compared at once.
const PART: usize = 1 << 16;

pub(super) fn open(dir: &Path) -> Result<Checkpoint, BaseError> {
    let mut config = ModelConfig::read(&ConfigValues::read(&dir.join(CONFIG_FILE))?)?;
    // The weights can be opened without it; what lies in its place is better said before than after.
    let tokenizer = dir.join(TOKENIZER_FILE);
    if let Ok(Some(placeholder)) = Placeholder::at(&tokenizer) {
        return Err(BaseError::Config { path: tokenizer, problem: placeholder.to_string() });
    }
    let found = WeightFiles::find(dir)?;
    let files: Vec<PathBuf> = found.counted.iter().map(|name| dir.join(name)).collect();
    let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        for located in manifest::open(file)?.tensors {
            let name = config.architecture().tensor(&located.entry.name).into_owned();
            // Two copies of the weights would both count, and it would be unclear which of them
            // trains.
            if let Some(other) = tensors.get(&name) {
                let problem = format!(
                    "tensor {name:?} stands both in {} and in {}; keep one copy of the weights in the folder",
                    found.counted[other.file], found.counted[number]
                );
                return Err(BaseError::Weights { dir: dir.to_owned(), problem });
            }
            tensors.insert(name, Stored { file: number, located });
        }
    }
    if let Some(index) = &found.index {
        check_index(dir, index, &found.counted, &tensors)?;
    }
    let mut remarks = Vec::new();
    if !found.passed_over.is_empty() {
        let why = if found.index.is_some() { INDEX_FILE } else { &found.counted[0] };
        let why = if found.index.is_some() { format!("{why} does not name") } else { format!("lie beside {why}") };
        remarks.push(format!("passes over files that {why}: {}", list(&found.passed_over)));
    }
    let own_head = settle_head(&mut config, &files, &mut tensors)?;
    let has_own_head = own_head.is_some();
    remarks.extend(own_head);
    let mut stored = BTreeMap::new();
    for (name, tensor) in tensors {
        match tensor.tensor(&name) {
            Some(tensor) => drop(stored.insert(name, tensor)),
            // A saved buffer may be of whole numbers.
            None if config.architecture().is_buffer(&name) => {}
            None => {
                let dtype = &tensor.located.entry.dtype;
                let problem = format!("tensor {name:?} is {dtype}; weights are F32, F16, BF16 or F64");
                return Err(BaseError::Weights { dir: dir.to_owned(), problem });
            }
        }
    }
    let (tensors, about_heads) = check(dir, &config, stored)?;
    remarks.extend(about_heads);
    Ok(Checkpoint { path: dir.to_owned(), config, files, tensors, gguf: None, has_own_head, remarks })
}

/// A tensor of one of the files.
struct Stored {
    file: usize,
    located: Located,
}

impl Stored {
    /// The tensor, if its numbers are of a format that weights have.
    fn tensor(&self, name: &str) -> Option<StoredTensor> {
        let (format, width) = match self.located.entry.dtype.as_str() {
            "F64" => (NumberFormat::F64, 8),
            "F32" => (NumberFormat::F32, 4),
            "F16" => (NumberFormat::F16, 2),
            "BF16" => (NumberFormat::Bf16, 2),
            _ => return None,
        };
        let bytes = (self.located.entry.numbers() as u64).saturating_mul(width);
        let (name, offset) = (name.to_owned(), self.located.offset);
        Some(StoredTensor { name, file: self.file, offset, bytes, shape: self.located.entry.shape.clone(), format })
    }
}

/// Every tensor must lie in the file that the index names.
fn check_index(
    dir: &Path,
    index: &Index,
    files: &[String],
    tensors: &BTreeMap<String, Stored>,
) -> Result<(), BaseError> {
    let by_name: BTreeMap<&str, &str> =
        tensors.values().map(|stored| (stored.located.entry.name.as_str(), files[stored.file].as_str())).collect();
    for (tensor, file) in index.places() {
        if by_name.get(tensor) != Some(&file) {
            let problem = format!("{INDEX_FILE} places tensor {tensor:?} in {file:?}, which does not hold it");
            return Err(BaseError::Weights { dir: dir.to_owned(), problem });
        }
    }
    Ok(())
}

/// Decides between embedding and vocabulary matrix where config.json ties them, as transformers 5
/// does: a matrix that differs stays its own, one that is equal is not kept twice, and one that is
/// there alone serves as both.
fn settle_head(
    config: &mut ModelConfig,
    files: &[PathBuf],
    tensors: &mut BTreeMap<String, Stored>,
) -> Result<Option<String>, BaseError> {
    let embedding = embedding(config);
    let Some(tied) = config.tied().filter(|tied| **tied) else { return Ok(None) };
    let Some(head) = tensors.get(HEAD) else { return Ok(None) };
    let Some(words) = tensors.get(embedding) else {
        if let Some(head) = tensors.remove(HEAD) {
            tensors.insert(embedding.to_owned(), head);
        }
        return Ok(None);
    };
    let same = words.located.entry.dtype == head.located.entry.dtype
        && words.located.entry.shape == head.located.entry.shape
        && same_bytes(files, words, head)?;
    if same {
        tensors.remove(HEAD);
        return Ok(None);
    }
    *tied = false;
    Ok(Some(format!("uses the files' {HEAD}, which differs from the embedding that config.json ties it to")))
}

/// Whether two tensors of one format and shape have the same bytes.
fn same_bytes(files: &[PathBuf], left: &Stored, right: &Stored) -> Result<bool, BaseError> {
    let open = |stored: &Stored| {
        let path = &files[stored.file];
        let opened = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(stored.located.offset))?;
            Ok(file)
        });
        opened.map_err(|source| BaseError::Io { path: path.clone(), source })
    };
    let mut sources = [open(left)?, open(right)?];
    let read = |file: &mut File, part: &mut [u8], stored: &Stored| {
        let result: io::Result<()> = file.read_exact(part);
        result.map_err(|source| BaseError::Io { path: files[stored.file].clone(), source })
    };
    // A tensor of a format that is not read has no known width; it is refused by its name later.
    let Some(whole) = left.tensor("") else { return Ok(false) };
    let mut rest = whole.bytes;
    let mut parts = [vec![0; PART], vec![0; PART]];
    while rest > 0 {
        let length = PART.min(usize::try_from(rest).unwrap_or(PART));
        let [one, other] = &mut parts;
        read(&mut sources[0], &mut one[..length], left)?;
        read(&mut sources[1], &mut other[..length], right)?;
        if one[..length] != other[..length] {
            return Ok(false);
        }
        rest -= length as u64;
    }
    Ok(true)
}
