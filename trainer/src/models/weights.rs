//! Tensors by name out of a model's files, one at a time: a model is never in memory twice.

mod gguf;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use rondo_base::Checkpoint;
use rondo_base::checkpoint::{NumberFormat, StoredTensor};
use rondo_base::config::ModelConfig;
use rondo_base::gguf::BlockKind;
use rondo_base::gguf_names::is_interleaved;
use rondo_proto::run_file::Quantise;
use tch::{Device, Kind, Tensor};

use super::packed::PackedMatrix;
use super::{ModelError, Packed, Weight};
use crate::packed::blocks::dequantise;
use crate::packed::nf4::Nf4;

/// Bytes of a tensor that are read at once.
const PART_BYTES: usize = 1 << 20;

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
}

/// How a packed weight is held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PackedWeights {
    /// Packed, and unpacked for every use.
    #[default]
    Keep,
    /// As numbers, unpacked once at load: the values of the packed form in the memory of the plain
    /// one. For comparison.
    Unpack,
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
    packed: PackedWeights,
}

impl WeightFiles {
    /// The tensors of a model's files, to be put on `device` as `kind`.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn open(checkpoint: &Checkpoint, device: Device, kind: Kind) -> Result<Self, ModelError> {
        let open = |path: &PathBuf| match File::open(path) {
            Ok(file) => Ok((path.clone(), file)),
            Err(source) => Err(ModelError::Io { path: path.clone(), source }),
        };
        let files = checkpoint.files.iter().map(open).collect::<Result<_, _>>()?;
        let architecture = checkpoint.config.architecture().model_type;
        let interleaved = match &checkpoint.config {
            ModelConfig::Llama(config) if checkpoint.gguf.is_some() => Some(config.head_size),
            _ => None,
        };
        let entry = |tensor: &StoredTensor| {
            let entry = Entry {
                file: tensor.file,
                offset: tensor.offset,
                bytes: tensor.bytes as usize,
                shape: tensor.shape.clone(),
                numbers: match tensor.format {
                    NumberFormat::F64 => Numbers::Plain(Kind::Double),
                    NumberFormat::F32 => Numbers::Plain(Kind::Float),
                    NumberFormat::F16 => Numbers::Plain(Kind::Half),
                    NumberFormat::Bf16 => Numbers::Plain(Kind::BFloat16),
                    NumberFormat::Blocks(kind) => Numbers::Blocks(kind),
                },
                interleaved: interleaved.filter(|_| is_interleaved(architecture, &tensor.name)),
            };
            (tensor.name.clone(), entry)
        };
        let entries = checkpoint.tensors.iter().map(entry).collect();
        let path = checkpoint.path.clone();
        Ok(Self { path, files, entries, device, kind, quantise: Quantise::None, packed: PackedWeights::Keep })
    }

    /// Has the linear layers' weights packed as they are loaded, and packed weights held in this
    /// way.
    #[must_use]
    pub fn with_packing(self, quantise: Quantise, packed: PackedWeights) -> Self {
        Self { quantise, packed, ..self }
    }

    /// Takes a tensor of this shape out, as numbers.
    ///
    /// # Errors
    /// The tensor is absent, has another shape, or cannot be read.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        self.take_as(name, shape, self.kind)
    }

    fn take_as(&mut self, name: &str, shape: &[usize], kind: Kind) -> Result<Tensor, ModelError> {
        let entry = self.entry(name, shape)?;
        let flat = Tensor::f_empty([shape.iter().product::<usize>() as i64], (kind, self.device))?;
        let mut done = 0;
        self.parts(&entry, name, &mut |part| {
            let length = part.size1()?;
            flat.f_narrow(0, done, length)?.f_copy_(part)?;
            done += length;
            Ok(())
        })?;
        let size: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        Ok(flat.f_view(size.as_slice())?)
    }

    /// Takes a linear layer's weight `[out, in]` out: packed where the file has it so or the run
    /// asks for it.
    ///
    /// # Errors
    /// As of [`WeightFiles::take`].
    pub fn take_weight(&mut self, name: &str, shape: &[usize; 2]) -> Result<Weight, ModelError> {
        if self.quantise == Quantise::None || self.blocks(name).is_some() {
            return self.take_table(name, shape);
        }
        let entry = self.entry(name, shape)?;
        let mut numbers = Nf4::with_capacity(shape[0] * shape[1]);
        self.parts(&entry, name, &mut |part| {
            numbers.extend(&Vec::<f32>::try_from(&part.f_to_kind(Kind::Float)?)?);
            Ok(())
        })?;
        self.held(PackedMatrix::of_nf4(numbers, *shape), &entry, name)
    }

    /// The same of a weight that the file holds as `[in, out]`.
    ///
    /// # Errors
    /// As of [`WeightFiles::take`].
    pub fn take_weight_transposed(&mut self, name: &str, [out, inp]: [usize; 2]) -> Result<Weight, ModelError> {
        let weight = self.take(name, &[inp, out])?.f_tr()?.f_contiguous()?;
        match self.quantise {
            Quantise::None => Ok(Weight::Dense(weight)),
            Quantise::Nf4 => {
                let kind = self.kind;
                let device = self.device;
                Ok(Weight::Packed { packed: Box::new(PackedMatrix::nf4(&weight)?), kind, device })
            }
        }
    }

    /// Takes an embedding or a vocabulary matrix out: packed where the file has it so, never packed
    /// here, since a run's quantisation is of linear layers within the model (as in QLoRA).
    ///
    /// # Errors
    /// As of [`WeightFiles::take`].
    pub fn take_table(&mut self, name: &str, shape: &[usize; 2]) -> Result<Weight, ModelError> {
        let Some(kind) = self.blocks(name) else {
            return Ok(Weight::Dense(self.take(name, shape)?));
        };
        let entry = self.entry(name, shape)?;
        let bytes = self.read(&entry)?;
        self.held(PackedMatrix::blocks(kind, bytes, *shape), &entry, name)
    }

    /// How the file packs a tensor, if it does.
    fn blocks(&self, name: &str) -> Option<BlockKind> {
        match self.entries.get(name)?.numbers {
            Numbers::Blocks(kind) => Some(kind),
            _ => None,
        }
    }

    fn held(&self, packed: Option<PackedMatrix>, entry: &Entry, name: &str) -> Result<Weight, ModelError> {
        let kind = self.kind;
        let device = self.device;
        let Some(packed) = packed else {
            return Err(self.malformed(entry, name, &"its rows are no whole blocks"));
        };
        match self.packed {
            PackedWeights::Unpack => {
                Ok(Weight::Dense(packed.dense(kind, device).map_err(|error| self.malformed(entry, name, &error))?))
            }
            PackedWeights::Keep => Ok(Weight::Packed { packed: Box::new(packed), kind, device }),
        }
    }

    fn entry(&mut self, name: &str, shape: &[usize]) -> Result<Entry, ModelError> {
        let Some(entry) = self.entries.remove(name) else {
            return Err(ModelError::Missing { dir: self.path.clone(), name: name.to_owned() });
        };
        if entry.shape == shape {
            return Ok(entry);
        }
        let dir = self.path.clone();
        let expected = shape.to_vec();
        Err(ModelError::Shape { dir, name: name.to_owned(), expected, found: entry.shape })
    }

    /// A tensor's bytes, its rows in Hugging Face's order.
    fn read(&mut self, entry: &Entry) -> Result<Vec<u8>, ModelError> {
        let mut bytes = vec![0; entry.bytes];
        self.read_at(entry, 0, &mut bytes)?;
        match entry.interleaved {
            Some(head_size) => Ok(gguf::half_behind_half(&bytes, entry.shape[0], head_size)),
            None => Ok(bytes),
        }
    }

    fn read_at(&mut self, entry: &Entry, first: usize, bytes: &mut [u8]) -> Result<(), ModelError> {
        let (path, file) = &mut self.files[entry.file];
        file.seek(SeekFrom::Start(entry.offset + first as u64))
            .and_then(|_| file.read_exact(bytes))
            .map_err(|source| ModelError::Io { path: path.clone(), source })
    }

    /// A tensor's numbers in Hugging Face's order, part by part, so that a large one is never there
    /// twice: each part `[n]` on the CPU, of the kind that the file has, and all but the last a
    /// multiple of 64 numbers.
    fn parts(
        &mut self,
        entry: &Entry,
        name: &str,
        take: &mut dyn FnMut(&Tensor) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let each = match entry.numbers {
            Numbers::Plain(kind) => kind.elt_size_in_bytes(),
            Numbers::Blocks(kind) => kind.bytes() as usize,
        };
        let step = each * (PART_BYTES / each / 64).max(1) * 64;
        let reordered = entry.interleaved.is_some().then(|| self.read(entry)).transpose()?;
        let mut part = vec![0; if reordered.is_some() { 0 } else { step.min(entry.bytes) }];
        for first in (0..entry.bytes).step_by(step) {
            let length = step.min(entry.bytes - first);
            let bytes = match &reordered {
                Some(bytes) => &bytes[first..first + length],
                None => {
                    self.read_at(entry, first, &mut part[..length])?;
                    &part[..length]
                }
            };
            let tensor = match entry.numbers {
                Numbers::Blocks(kind) => {
                    let mut numbers = vec![0.0; length / each * kind.numbers() as usize];
                    dequantise(kind, bytes, &mut numbers).map_err(|error| self.malformed(entry, name, &error))?;
                    Tensor::f_from_slice(&numbers)?
                }
                Numbers::Plain(kind) => Tensor::f_from_data_size(bytes, &[(length / each) as i64], kind)?,
            };
            take(&tensor)?;
        }
        Ok(())
    }

    fn malformed(&self, entry: &Entry, name: &str, problem: &dyn std::fmt::Display) -> ModelError {
        let path = self.files[entry.file].0.clone();
        ModelError::Malformed { path, problem: format!("tensor {name:?}: {problem}") }
    }
}
