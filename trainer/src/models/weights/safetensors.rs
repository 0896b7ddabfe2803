//! The *.safetensors files of a Hugging Face folder, one or many.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;
use rondo_base::is_weights;
use serde::Deserialize;
use tch::{Device, Kind};

use super::{Entry, Numbers, WeightFiles};
use crate::models::ModelError;

/// The header of a safetensors file may not be longer than this, as in the format's own library.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Says which file holds which tensor of a model in many files.
const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl WeightFiles {
    /// Reads the headers of the *.safetensors files in `dir`: those that its index names, if it has
    /// one, else all that hold weights. Tensors will be put on `device` as `kind`.
    ///
    /// Names lose a leading `prefix`, and the TensorFlow spelling of layer norms (`gamma`, `beta`)
    /// is put right.
    ///
    /// # Errors
    /// No such files, one that is missing from its index, a malformed header.
    pub fn open(dir: &Path, prefix: &str, device: Device, kind: Kind) -> Result<Self, ModelError> {
        let mut weights = Self::empty(dir.to_owned(), device, kind);
        for path in paths(dir)? {
            let io = |source| ModelError::Io { path: path.clone(), source };
            let mut file = File::open(&path).map_err(io)?;
            let size = file.metadata().map_err(io)?.len();
            weights.read_header(&path, &mut file, size, prefix)?;
            weights.files.push((path, file));
        }
        Ok(weights)
    }

    fn read_header(&mut self, path: &Path, file: &mut File, size: u64, prefix: &str) -> Result<(), ModelError> {
        let malformed = |problem: String| ModelError::Malformed { path: path.to_owned(), problem };
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES || length + 8 > size {
            return Err(malformed(format!("not a safetensors file: a header of {length} bytes in {size}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| malformed(format!("safetensors header: {error}")))?;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let numbers: usize = info.shape.iter().product();
            let offset = 8 + length + start as u64;
            if end < start || 8 + length + end as u64 > size || (end - start) * 8 != numbers * info.dtype.bitsize() {
                return Err(malformed(format!("tensor {name:?} lies outside the file; is it cut short?")));
            }
            let entry = Entry {
                file: self.files.len(),
                offset,
                bytes: end - start,
                shape: info.shape.clone(),
                numbers: match info.dtype {
                    Dtype::F32 => Numbers::Plain(Kind::Float),
                    Dtype::F16 => Numbers::Plain(Kind::Half),
                    Dtype::BF16 => Numbers::Plain(Kind::BFloat16),
                    Dtype::F64 => Numbers::Plain(Kind::Double),
                    other => Numbers::Other(other),
                },
                interleaved: None,
            };
            let name = name.strip_prefix(prefix).unwrap_or(&name);
            let name = match name.rsplit_once('.') {
                Some((norm, "gamma")) if norm.ends_with("LayerNorm") => format!("{norm}.weight"),
                Some((norm, "beta")) if norm.ends_with("LayerNorm") => format!("{norm}.bias"),
                _ => name.to_owned(),
            };
            if let Some(other) = self.entries.get(&name) {
                let other = self.files.get(other.file).map_or(path, |(path, _)| path);
                let problem = format!("tensor {name:?} is in {} as well; remove one of them", other.display());
                return Err(malformed(problem));
            }
            self.entries.insert(name, entry);
        }
        Ok(())
    }
}

/// The files that make up the model, sorted.
fn paths(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let io = |source| ModelError::Io { path: dir.to_owned(), source };
    let mut there = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        if let Some(name) = entry.map_err(io)?.file_name().to_str().filter(|name| is_weights(name)) {
            there.insert(name.to_owned());
        }
    }
    if there.is_empty() {
        return Err(io(std::io::Error::new(std::io::ErrorKind::NotFound, "no *.safetensors files")));
    }
    let index = dir.join(INDEX);
    let (named, by) = match std::fs::read(&index) {
        Ok(text) => {
            let index_of: Index = serde_json::from_slice(&text)
                .map_err(|error| ModelError::Malformed { path: index.clone(), problem: error.to_string() })?;
            (index_of.weight_map.into_values().collect(), index)
        }
        // Without an index, the files' own numbering tells whether one is missing.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let named: BTreeSet<String> = there.iter().flat_map(|name| siblings(name)).collect();
            (&named | &there, dir.to_owned())
        }
        Err(source) => return Err(ModelError::Io { path: index, source }),
    };
    let missing: Vec<&str> = named.difference(&there).map(String::as_str).collect();
    if !missing.is_empty() {
        let problem = format!("the model's weights lack {}; fetch them into the folder", missing.join(", "));
        return Err(ModelError::Malformed { path: by, problem });
    }
    Ok(named.into_iter().map(|name| dir.join(name)).collect())
}

/// All parts of the model that a file named like "model-00001-of-00003.safetensors" is one of.
fn siblings(name: &str) -> Vec<String> {
    let parts = || -> Option<(&str, usize)> {
        let (stem, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
        let (stem, number) = stem.rsplit_once('-')?;
        (number.len() == 5 && count.len() == 5).then_some((stem, count.parse().ok()?))
    };
    match parts() {
        Some((stem, count)) => (1..=count).map(|n| format!("{stem}-{n:05}-of-{count:05}.safetensors")).collect(),
        None => Vec::new(),
    }
}
