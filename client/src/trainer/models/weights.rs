//! Tensors by name out of a model's files, one at a time: a model is never in memory twice.

mod gguf;
mod safetensors;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use rondo_proto::gguf::BlockKind;
use rondo_proto::run_file::Quantise;
use tch::{Device, Kind, Tensor};

use super::packed::PackedMatrix;
use super::{ModelError, Weight};
use crate::gguf::blocks::dequantise;

/// Where a tensor lies.
struct Entry {
    file: usize,
    /// From the start of the file.
    offset: u64,
    bytes: usize,
    /// For a matrix rows and columns.
    shape: Vec<usize>,
    numbers: Numbers,
    /// Numbers in a head, where a head's rows lie interleaved and not half behind half.
    interleaved: Option<usize>,
}

/// How a tensor's numbers are written.
#[derive(Debug, Clone, Copy)]
enum Numbers {
    Plain(Kind),
    Blocks(BlockKind),
    /// In a way that weights are not; the format's word for it.
    Other(::safetensors::Dtype),
}

/// A model's files and the tensors not yet taken out of them.
pub struct WeightFiles {
    /// The folder, or the one file.
    path: PathBuf,
    files: Vec<(PathBuf, File)>,
    entries: BTreeMap<String, Entry>,
    device: Device,
    kind: Kind,
    quantise: Quantise,
}

impl WeightFiles {
    fn empty(path: PathBuf, device: Device, kind: Kind) -> Self {
        let (files, entries) = (Vec::new(), BTreeMap::new());
        Self { path, files, entries, device, kind, quantise: Quantise::None }
    }

    /// Has the linear layers' weights packed as they are loaded.
    #[must_use]
    pub fn quantised(self, quantise: Quantise) -> Self {
        Self { quantise, ..self }
    }

    /// Takes a tensor of this shape out, as numbers.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        self.take_as(name, shape, self.kind)
    }

    fn take_as(&mut self, name: &str, shape: &[usize], kind: Kind) -> Result<Tensor, ModelError> {
        let entry = self.entry(name, shape)?;
        let bytes = self.read(&entry)?;
        let size: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let tensor = match entry.numbers {
            Numbers::Plain(kind) => Tensor::f_from_data_size(&bytes, &size, kind)?,
            Numbers::Blocks(kind) => {
                let mut numbers = vec![0.0; shape.iter().product()];
                dequantise(kind, &bytes, &mut numbers).map_err(|error| self.malformed(&entry, name, &error))?;
                Tensor::f_from_slice(&numbers)?.f_view(size.as_slice())?
            }
            Numbers::Other(dtype) => {
                let problem = format!("it is {dtype:?}; weights are F32, F16, BF16 or F64");
                return Err(self.malformed(&entry, name, &problem));
            }
        };
        Ok(tensor.f_to_device(self.device)?.f_to_kind(kind)?)
    }

    /// Takes a linear layer's weight `[out, in]` out: packed where the file has it so or the run asks for it.
    pub fn take_weight(&mut self, name: &str, shape: &[usize; 2]) -> Result<Weight, ModelError> {
        match self.take_table(name, shape)? {
            Weight::Dense(weight) => self.packed(weight),
            packed => Ok(packed),
        }
    }

    /// The same of a weight that the file holds as `[in, out]`.
    pub fn take_weight_transposed(&mut self, name: &str, [out, inp]: [usize; 2]) -> Result<Weight, ModelError> {
        let weight = self.take(name, &[inp, out])?.f_tr()?.f_contiguous()?;
        self.packed(weight)
    }

    /// Takes an embedding or a vocabulary matrix out: packed where the file has it so, never packed here, since a run's
    /// quantisation is of linear layers within the model (as in QLoRA).
    pub fn take_table(&mut self, name: &str, shape: &[usize; 2]) -> Result<Weight, ModelError> {
        let blocks = self.entries.get(name).and_then(|entry| match entry.numbers {
            Numbers::Blocks(kind) => Some(kind),
            _ => None,
        });
        let Some(kind) = blocks else {
            return Ok(Weight::Dense(self.take(name, shape)?));
        };
        let entry = self.entry(name, shape)?;
        let bytes = self.read(&entry)?;
        match PackedMatrix::blocks(kind, bytes, *shape) {
            Some(packed) => Ok(Weight::Packed { packed: Box::new(packed), kind: self.kind, device: self.device }),
            None => Err(self.malformed(&entry, name, &format!("its rows are no whole blocks of {kind}"))),
        }
    }

    fn packed(&self, weight: Tensor) -> Result<Weight, ModelError> {
        match self.quantise {
            Quantise::None => Ok(Weight::Dense(weight)),
            Quantise::Nf4 => Ok(Weight::Packed {
                packed: Box::new(PackedMatrix::nf4(&weight)?),
                kind: self.kind,
                device: self.device,
            }),
        }
    }

    fn entry(&mut self, name: &str, shape: &[usize]) -> Result<Entry, ModelError> {
        let Some(entry) = self.entries.remove(name) else {
            return Err(ModelError::Missing { dir: self.path.clone(), name: name.to_owned() });
        };
        if entry.shape == shape {
            return Ok(entry);
        }
        let (dir, expected) = (self.path.clone(), shape.to_vec());
        Err(ModelError::Shape { dir, name: name.to_owned(), expected, found: entry.shape })
    }

    /// A tensor's bytes, its rows in Hugging Face's order.
    fn read(&mut self, entry: &Entry) -> Result<Vec<u8>, ModelError> {
        let (path, file) = &mut self.files[entry.file];
        let mut bytes = vec![0; entry.bytes];
        file.seek(SeekFrom::Start(entry.offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| ModelError::Io { path: path.clone(), source })?;
        match entry.interleaved {
            Some(head_size) => Ok(gguf::half_behind_half(&bytes, entry.shape[0], head_size)),
            None => Ok(bytes),
        }
    }

    fn malformed(&self, entry: &Entry, name: &str, problem: &dyn std::fmt::Display) -> ModelError {
        let path = self.files[entry.file].0.clone();
        ModelError::Malformed { path, problem: format!("tensor {name:?}: {problem}") }
    }

    /// Refuses tensors that nobody took, but for those under one of the `ignored` prefixes.
    pub fn finish(self, architecture: &'static str, ignored: &[&str]) -> Result<(), ModelError> {
        self.finish_with(architecture, |name| ignored.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// Refuses tensors that nobody took, but for those that `ignored` says may be left over.
    pub fn finish_with(self, architecture: &'static str, ignored: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        let mut names: Vec<String> = self.entries.into_keys().filter(|name| !ignored(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        if names.len() > 8 {
            let more = names.len() - 8;
            names.truncate(8);
            names.push(format!("and {more} more"));
        }
        Err(ModelError::Unknown { dir: self.path, architecture, names })
    }
}
