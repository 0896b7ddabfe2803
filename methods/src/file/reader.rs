//! Reading single tensors by their offset.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rondo_proto::manifest::{self, Located, TensorEntry, TensorSource};

use super::{BLOCK, FileError};
use crate::tensor::{Tensor, TensorSet};

/// An open safetensors file: its checked header, and tensors on demand.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    /// Locked while a tensor is read, because the position is shared.
    file: Mutex<File>,
    tensors: BTreeMap<String, Located>,
    metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Reads and checks the header: bounded size, offsets without holes, file length exact.
    ///
    /// # Errors
    /// The file cannot be read, or it is not a sound safetensors file.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let TensorSource { file, tensors, metadata } = manifest::open(path)?;
        let tensors = tensors.into_iter().map(|located| (located.entry.name.clone(), located)).collect();
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), tensors, metadata })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names, shapes and dtypes, sorted by name.
    pub fn entries(&self) -> Vec<TensorEntry> {
        self.tensors.values().map(|located| located.entry.clone()).collect()
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
        self.tensors.get(name).map(|located| located.entry.shape.as_slice())
    }

    /// Reads one tensor. F32, F64, F16 and BF16 are understood.
    ///
    /// # Errors
    /// As [`Self::for_each_block`].
    pub fn read(&self, name: &str) -> Result<Tensor, FileError> {
        let mut tensor = Tensor { shape: Vec::new(), data: Vec::new() };
        tensor.shape = self.for_each_block(name, |block| tensor.data.extend_from_slice(block))?;
        Ok(tensor)
    }

    /// Reads every tensor whose name `wanted` accepts.
    ///
    /// # Errors
    /// As [`Self::for_each_block`].
    pub fn read_all(&self, wanted: impl Fn(&str) -> bool) -> Result<TensorSet, FileError> {
        let names = self.tensors.keys().filter(|name| wanted(name));
        names.map(|name| Ok((name.clone(), self.read(name)?))).collect()
    }

    /// Passes over a tensor's numbers as f32 in blocks, in row-major order; returns its shape.
    /// `visit` must not read this file itself.
    ///
    /// # Errors
    /// The file has no tensor of this name, the tensor has another number format, or the file
    /// cannot be read.
    pub fn for_each_block(&self, name: &str, mut visit: impl FnMut(&[f32])) -> Result<Vec<usize>, FileError> {
        let Located { entry: TensorEntry { shape, dtype, .. }, offset } = self
            .tensors
            .get(name)
            .ok_or_else(|| FileError::NoTensor { path: self.path.clone(), name: name.to_owned() })?;
        let (width, convert): (usize, fn(&[u8]) -> f32) = match dtype.as_str() {
            "F32" => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            "F64" => (8, |b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32),
            "F16" => (2, |b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()),
            "BF16" => (2, |b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            other => {
                let problem = format!("tensor `{name}` is {other}; F32, F64, F16 and BF16 are understood");
                return Err(FileError::format(&self.path, problem));
            }
        };
        let io = |source| FileError::io(&self.path, source);
        let locked = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = BufReader::with_capacity(1 << 16, &*locked);
        file.seek(SeekFrom::Start(*offset)).map_err(io)?;
        let mut left: usize = shape.iter().product();
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
        Ok(shape.clone())
    }
}
