//! Writing tensors one after another behind a header that was announced first.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rondo_proto::manifest::safetensors_name;
use rondo_proto::run_file::Dtype;
use serde_json::{Map, Value, json};

use super::{BLOCK, FileError};
use crate::tensor::{Tensor, TensorSet};

/// A safetensors file in the making. Tensors must come in the announced order.
#[derive(Debug)]
pub struct TensorWriter {
    path: PathBuf,
    file: BufWriter<File>,
    dtype: Dtype,
    left: std::vec::IntoIter<(String, Vec<usize>)>,
    written: u64,
}

impl TensorWriter {
    /// Creates the file and writes its header. All tensors get the same dtype.
    ///
    /// # Errors
    /// A tensor is announced twice, or the file cannot be written.
    pub fn create(
        path: &Path,
        tensors: Vec<(String, Vec<usize>)>,
        dtype: Dtype,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, FileError> {
        let mut header = Map::new();
        let mut marks = Map::new();
        // transformers and PEFT ask for the framework that the numbers are laid out for.
        marks.insert("format".into(), json!("pt"));
        marks.extend(metadata.iter().map(|(key, value)| (key.clone(), json!(value))));
        header.insert("__metadata__".into(), Value::Object(marks));
        let mut offset = 0_u64;
        for (name, shape) in &tensors {
            let end = offset + (shape.iter().product::<usize>() * dtype.width()) as u64;
            let entry = json!({"dtype": safetensors_name(dtype), "shape": shape, "data_offsets": [offset, end]});
            if header.insert(name.clone(), entry).is_some() {
                let problem = "it was announced twice".to_owned();
                return Err(FileError::Order { path: path.to_owned(), name: name.clone(), problem });
            }
            offset = end;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        // The data starts on a multiple of 8, so that a reader may map it.
        text.resize(text.len().next_multiple_of(8), b' ');
        let io = |source| FileError::io(path, source);
        let mut file = BufWriter::with_capacity(1 << 16, File::create(path).map_err(io)?);
        file.write_all(&(text.len() as u64).to_le_bytes()).map_err(io)?;
        file.write_all(&text).map_err(io)?;
        let written = 8 + text.len() as u64;
        Ok(Self { path: path.to_owned(), file, dtype, left: tensors.into_iter(), written })
    }

    /// Writes the next tensor.
    ///
    /// # Errors
    /// Another tensor or shape was announced, the tensor's numbers do not fill its shape, or the
    /// file cannot be written.
    pub fn write(&mut self, name: &str, tensor: &Tensor) -> Result<(), FileError> {
        self.check(name, &tensor.shape)?;
        if tensor.data.len() != tensor.shape.iter().product::<usize>() {
            return Err(
                self.out_of_order(name, format!("it holds {} numbers for {:?}", tensor.data.len(), tensor.shape))
            );
        }
        let mut bytes = Vec::with_capacity(BLOCK.min(tensor.data.len()) * self.dtype.width());
        for block in tensor.data.chunks(BLOCK) {
            bytes.clear();
            match self.dtype {
                Dtype::F32 => bytes.extend(block.iter().flat_map(|x| x.to_le_bytes())),
                Dtype::Bf16 => bytes.extend(block.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())),
            }
            self.file.write_all(&bytes).map_err(|source| FileError::io(&self.path, source))?;
        }
        self.written += (tensor.data.len() * self.dtype.width()) as u64;
        Ok(())
    }

    /// Flushes the file to the disk; returns its length in bytes.
    ///
    /// # Errors
    /// An announced tensor was never written, or the file cannot be flushed to the disk.
    pub fn finish(mut self) -> Result<u64, FileError> {
        if let Some((name, _)) = self.left.next() {
            return Err(self.out_of_order(&name, "it was announced but never written".into()));
        }
        let io = |source| FileError::io(&self.path, source);
        self.file.flush().map_err(io)?;
        self.file.get_ref().sync_all().map_err(io)?;
        Ok(self.written)
    }

    fn check(&mut self, name: &str, shape: &[usize]) -> Result<(), FileError> {
        match self.left.next() {
            Some((next, expected)) if next == name && expected == shape => Ok(()),
            Some((next, expected)) => {
                Err(self.out_of_order(name, format!("came with {shape:?} where `{next}` {expected:?} was due")))
            }
            None => Err(self.out_of_order(name, "no tensor was due".into())),
        }
    }

    fn out_of_order(&self, name: &str, problem: String) -> FileError {
        FileError::Order { path: self.path.clone(), name: name.to_owned(), problem }
    }
}

/// Writes a whole set, sorted by name; returns the file's length in bytes.
///
/// # Errors
/// A tensor's numbers do not fill its shape, or the file cannot be written.
pub fn write(
    path: &Path,
    tensors: &TensorSet,
    dtype: Dtype,
    metadata: &BTreeMap<String, String>,
) -> Result<u64, FileError> {
    let announced = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
    let mut writer = TensorWriter::create(path, announced, dtype, metadata)?;
    for (name, tensor) in tensors {
        writer.write(name, tensor)?;
    }
    writer.finish()
}
