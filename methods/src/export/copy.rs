//! A safetensors file written again, with some of its tensors changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rondo_proto::manifest::{self, Located};
use serde_json::{Map, Value, json};

use crate::error::MethodError;
use crate::file::{FileError, TensorFile};
use crate::linalg::Matrix;

/// Bytes copied at a time.
const BLOCK: usize = 1 << 20;

/// Squares over all changed weights.
#[derive(Default)]
pub(super) struct Rounding {
    lost: f64,
    change: f64,
}

impl Rounding {
    pub(super) fn relative(&self) -> Option<f64> {
        (self.change > 0.0).then(|| (self.lost / self.change).sqrt())
    }
}

/// A safetensors file copied tensor by tensor, in the order in which the tensors lie.
pub(super) struct WeightsCopy {
    from: TensorFile,
    raw: File,
    source: PathBuf,
    to: BufWriter<File>,
    target: PathBuf,
    left: std::vec::IntoIter<Located>,
}

impl WeightsCopy {
    pub(super) fn create(
        source: &Path,
        target: &Path,
        provenance: &BTreeMap<String, String>,
    ) -> Result<Self, MethodError> {
        let from = TensorFile::open(source)?;
        let opened = manifest::open(source).map_err(FileError::from)?;
        let mut tensors = opened.tensors;
        tensors.sort_by_key(|located| located.offset);
        let start = tensors.first().map_or(0, |located| located.offset);
        let mut metadata = opened.metadata;
        metadata.extend(provenance.iter().map(|(key, value)| (key.clone(), value.clone())));
        metadata.insert("format".into(), "pt".into());
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!(metadata));
        let mut ends: Vec<u64> = tensors.iter().skip(1).map(|located| located.offset - start).collect();
        let length = std::fs::metadata(source).map_err(|error| MethodError::io(source, error))?.len();
        ends.push(length.saturating_sub(start));
        for (located, end) in tensors.iter().zip(ends) {
            let entry = &located.entry;
            let offsets = [located.offset - start, end];
            header.insert(
                entry.name.clone(),
                json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}),
            );
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let io = |error| MethodError::io(target, error);
        let mut to = BufWriter::with_capacity(BLOCK, File::create(target).map_err(io)?);
        to.write_all(&(text.len() as u64).to_le_bytes()).and_then(|()| to.write_all(&text)).map_err(io)?;
        Ok(Self {
            from,
            raw: opened.file,
            source: source.to_owned(),
            to,
            target: target.to_owned(),
            left: tensors.into_iter(),
        })
    }

    pub(super) fn next(&mut self) -> Option<Located> {
        self.left.next()
    }

    pub(super) fn unchanged(&mut self, located: &Located) -> Result<(), MethodError> {
        let width = width(&located.entry.dtype).ok_or_else(|| self.unsupported(located))?;
        let mut left = located.entry.numbers() * width;
        let mut block = vec![0; left.min(BLOCK)];
        self.raw.seek(SeekFrom::Start(located.offset)).map_err(|source| MethodError::io(&self.source, source))?;
        while left > 0 {
            let part = &mut block[..left.min(BLOCK)];
            self.raw.read_exact(part).map_err(|source| MethodError::io(&self.source, source))?;
            self.to.write_all(part).map_err(|source| MethodError::io(&self.target, source))?;
            left -= part.len();
        }
        Ok(())
    }

    pub(super) fn changed(
        &mut self,
        located: &Located,
        delta: &Matrix,
        rounding: &mut Rounding,
    ) -> Result<(), MethodError> {
        let entry = &located.entry;
        if entry.shape != [delta.rows(), delta.cols()] {
            let (rows, columns) = (delta.rows(), delta.cols());
            let problem = format!("tensor {:?} is {:?}, its change is [{rows}, {columns}]", entry.name, entry.shape);
            return Err(MethodError::Export(problem));
        }
        let write: fn(f64, &mut Vec<u8>) -> f64 = match entry.dtype.as_str() {
            "F64" => |x, out| {
                out.extend(x.to_le_bytes());
                x
            },
            "F32" => |x, out| {
                out.extend((x as f32).to_le_bytes());
                f64::from(x as f32)
            },
            "F16" => |x, out| {
                let rounded = half::f16::from_f64(x);
                out.extend(rounded.to_le_bytes());
                rounded.to_f64()
            },
            "BF16" => |x, out| {
                let rounded = half::bf16::from_f64(x);
                out.extend(rounded.to_le_bytes());
                rounded.to_f64()
            },
            _ => return Err(self.unsupported(located)),
        };
        let mut bytes = Vec::new();
        let mut changes = delta.data().iter();
        let to = &mut self.to;
        let target = &self.target;
        let mut failed = None;
        self.from.for_each_block(&entry.name, |block| {
            bytes.clear();
            for (number, change) in block.iter().zip(&mut changes) {
                let exact = f64::from(*number) + change;
                let rounded = write(exact, &mut bytes);
                rounding.lost += (rounded - exact).powi(2);
                rounding.change += change.powi(2);
            }
            if let Err(error) = to.write_all(&bytes) {
                failed.get_or_insert(error);
            }
        })?;
        failed.map_or(Ok(()), |source| Err(MethodError::io(target, source)))
    }

    fn unsupported(&self, located: &Located) -> MethodError {
        let Located { entry, .. } = located;
        let path = self.source.display();
        MethodError::Export(format!("{path}: tensor {:?} is {}, which cannot be merged into", entry.name, entry.dtype))
    }

    pub(super) fn finish(mut self) -> Result<(), MethodError> {
        let io = |source| MethodError::io(&self.target, source);
        self.to.flush().map_err(io)?;
        self.to.get_ref().sync_all().map_err(io)
    }
}

/// Bytes of a number of a safetensors dtype.
fn width(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "F64" | "I64" | "U64" => 8,
        "F32" | "I32" | "U32" => 4,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" => 1,
        _ => return None,
    })
}
