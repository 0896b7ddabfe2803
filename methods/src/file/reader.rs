//! Reading single tensors by their offset.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rondo_proto::manifest::TensorEntry;
use safetensors::tensor::{Dtype, Metadata};

use super::{BLOCK, FileError};
use crate::tensor::{Tensor, TensorSet};

/// Longest header that is read. A header takes about 150 bytes per tensor, so this is room for 100,000 tensors.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// An open safetensors file: its checked header, and tensors on demand.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, Place>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
struct Place {
    shape: Vec<usize>,
    dtype: Dtype,
    offset: u64,
}

impl TensorFile {
    /// Reads and checks the header: bounded size, known dtypes, offsets without holes, file length exact.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let io = |source| FileError::io(path, source);
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut prefix = [0; 8];
        if length < 8 {
            return Err(FileError::format(path, format!("it has {length} bytes, the header's length alone takes 8")));
        }
        file.read_exact(&mut prefix).map_err(io)?;
        let header = u64::from_le_bytes(prefix);
        if header > MAX_HEADER_BYTES || header > length - 8 {
            let problem = format!("its header claims {header} bytes of {length}, at most {MAX_HEADER_BYTES} are read");
            return Err(FileError::format(path, problem));
        }
        let mut bytes = vec![0; header as usize];
        file.read_exact(&mut bytes).map_err(io)?;
        let parsed: Metadata =
            serde_json::from_slice(&bytes).map_err(|error| FileError::format(path, error.to_string()))?;
        let data = length - 8 - header;
        let claimed = parsed.data_len() as u64;
        if claimed != data {
            return Err(FileError::format(
                path,
                format!("its tensors take {claimed} bytes, but {data} follow the header"),
            ));
        }
        let mut tensors = BTreeMap::new();
        for (name, info) in parsed.tensors() {
            let place =
                Place { shape: info.shape.clone(), dtype: info.dtype, offset: 8 + header + info.data_offsets.0 as u64 };
            tensors.insert(name, place);
        }
        let metadata = parsed.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Self { path: path.to_owned(), file, tensors, metadata })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names, shapes and dtypes, sorted by name.
    pub fn entries(&self) -> Vec<TensorEntry> {
        let entry = |(name, place): (&String, &Place)| TensorEntry {
            name: name.clone(),
            shape: place.shape.clone(),
            dtype: place.dtype.to_string(),
        };
        self.tensors.iter().map(entry).collect()
    }

    /// The `__metadata__` strings.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// True when the file has this tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|place| place.shape.as_slice())
    }

    /// Reads one tensor. F32, F64, F16 and BF16 are understood.
    pub fn read(&self, name: &str) -> Result<Tensor, FileError> {
        let mut tensor = Tensor { shape: Vec::new(), data: Vec::new() };
        tensor.shape = self.for_each_block(name, |block| tensor.data.extend_from_slice(block))?;
        Ok(tensor)
    }

    /// Reads every tensor whose name `wanted` accepts.
    pub fn read_all(&self, wanted: impl Fn(&str) -> bool) -> Result<TensorSet, FileError> {
        let names = self.tensors.keys().filter(|name| wanted(name));
        names.map(|name| Ok((name.clone(), self.read(name)?))).collect()
    }

    /// Passes over a tensor's numbers in blocks, in order; returns its shape.
    pub fn for_each_block(&self, name: &str, mut visit: impl FnMut(&[f32])) -> Result<Vec<usize>, FileError> {
        let place = self
            .tensors
            .get(name)
            .ok_or_else(|| FileError::NoTensor { path: self.path.clone(), name: name.to_owned() })?;
        let convert: fn(&[u8]) -> f32 = match place.dtype {
            Dtype::F32 => |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Dtype::F64 => |b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32,
            Dtype::F16 => |b| half::f16::from_le_bytes([b[0], b[1]]).to_f32(),
            Dtype::BF16 => |b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            other => {
                let problem = format!("tensor `{name}` is {other:?}; F32, F64, F16 and BF16 are understood");
                return Err(FileError::format(&self.path, problem));
            }
        };
        let width = place.dtype.bitsize() / 8;
        let io = |source| FileError::io(&self.path, source);
        let mut file = BufReader::with_capacity(1 << 16, &self.file);
        file.seek(SeekFrom::Start(place.offset)).map_err(io)?;
        let mut left: usize = place.shape.iter().product();
        let mut bytes = vec![0; left.min(BLOCK) * width];
        let mut numbers = Vec::with_capacity(left.min(BLOCK));
        while left > 0 {
            let count = left.min(BLOCK);
            file.read_exact(&mut bytes[..count * width]).map_err(io)?;
            numbers.clear();
            numbers.extend(bytes[..count * width].chunks_exact(width).map(convert));
            visit(&numbers);
            left -= count;
        }
        Ok(place.shape.clone())
    }
}
