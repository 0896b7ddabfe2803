//! Full weights with the adapter in them: the base model's own files again, each target's weight changed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rondo_proto::architecture::{self, Orientation};
use rondo_proto::manifest::{self, Located};
use serde_json::{Map, Value, json};

use super::card;
use super::head::HEAD_FILE;
use super::peft::ExportInfo;
use crate::error::MethodError;
use crate::file::{FileError, TensorFile};
use crate::job::{AdapterState, Job};
use crate::linalg::Matrix;

/// Bytes copied at a time.
const BLOCK: usize = 1 << 20;
/// Files of a model folder that hold weights in other formats; a merged folder must not carry the unchanged ones along.
const OTHER_WEIGHTS: [&str; 9] = ["bin", "pt", "pth", "gguf", "onnx", "h5", "msgpack", "ot", "ckpt"];

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedReport {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Weights that were changed.
    pub merged: usize,
    /// ||rounded - exact||_F / ||dW||_F over all changed weights: what the files' own number format costs.
    pub rounding: Option<f64>,
}

impl Job {
    /// Writes `W0 + dW` for every target, in the base's own files, names, shards and number formats, with its tokenizer
    /// and configuration beside them. One weight is in memory at a time. `model_dir` must hold the run's base (the
    /// caller has compared the digest).
    pub fn export_merged(
        &self,
        state: &AdapterState,
        model_dir: &Path,
        out_dir: &Path,
        info: &ExportInfo,
    ) -> Result<MergedReport, MethodError> {
        std::fs::create_dir_all(out_dir).map_err(|source| MethodError::io(out_dir, source))?;
        let provenance = self.provenance(info);
        let mut left: BTreeSet<usize> = (0..self.targets().len()).collect();
        let mut rounding = Rounding::default();
        let mut files = Vec::new();
        let mut weights = 0;
        for name in file_names(model_dir)? {
            let (from, to) = (model_dir.join(&name), out_dir.join(&name));
            let extension = from.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if extension == "safetensors" {
                weights += 1;
                let mut copy = Copy::create(&from, &to, &provenance)?;
                while let Some(located) = copy.next() {
                    match self.target_of(&located.entry.name) {
                        Some((target, transposed)) => {
                            let delta = self.dense_delta(state, target)?;
                            let delta = if transposed { delta.transposed() } else { delta };
                            copy.changed(&located, &delta, &mut rounding)?;
                            left.remove(&target);
                        }
                        None => copy.unchanged(&located)?,
                    }
                }
                copy.finish()?;
            } else if name == "README.md" || name == HEAD_FILE || OTHER_WEIGHTS.contains(&extension) {
                continue;
            } else {
                std::fs::copy(&from, &to).map_err(|source| MethodError::io(&from, source))?;
            }
            files.push(to);
        }
        if weights == 0 {
            let problem = format!("{} holds no *.safetensors files to merge into", model_dir.display());
            return Err(MethodError::Export(problem));
        }
        if let Some(missed) = left.first() {
            let target = &self.targets()[*missed].name;
            return Err(MethodError::Export(format!("{} has no weight of {target:?}", model_dir.display())));
        }
        if let Some(head) = self.exported_head(state)? {
            head.save(out_dir, &provenance)?;
            files.push(out_dir.join(HEAD_FILE));
        }
        let merged = self.targets().len();
        let report = MergedReport { files, merged, rounding: rounding.relative() };
        let readme = out_dir.join("README.md");
        std::fs::write(&readme, card::merged(self, info, &report))
            .map_err(|source| MethodError::io(&readme, source))?;
        Ok(MergedReport { files: [report.files, vec![readme]].concat(), ..report })
    }

    /// The target whose weight a tensor of the base is, and whether the file holds it as `[in, out]`.
    fn target_of(&self, tensor: &str) -> Option<(usize, bool)> {
        let module = tensor.strip_suffix(".weight")?;
        let architecture = architecture::find(&self.task().architecture);
        let canonical = architecture.map_or(module.into(), |known| known.canonical(module));
        let target = self.targets().iter().position(|target| target.name == module || target.name == canonical)?;
        Some((target, architecture.is_some_and(|known| known.orientation == Orientation::InOut)))
    }
}

/// Squares over all changed weights.
#[derive(Default)]
struct Rounding {
    lost: f64,
    change: f64,
}

impl Rounding {
    fn relative(&self) -> Option<f64> {
        (self.change > 0.0).then(|| (self.lost / self.change).sqrt())
    }
}

/// The plain files of a folder, sorted.
fn file_names(dir: &Path) -> Result<Vec<String>, MethodError> {
    let io = |source| MethodError::io(dir, source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        // Follows links: model folders are often made of links into a cache.
        let is_file = std::fs::metadata(entry.path()).is_ok_and(|about| about.is_file());
        if let (true, Ok(name)) = (is_file, entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A safetensors file copied tensor by tensor, in the order in which the tensors lie.
struct Copy {
    from: TensorFile,
    raw: File,
    source: PathBuf,
    to: BufWriter<File>,
    target: PathBuf,
    left: std::vec::IntoIter<Located>,
}

impl Copy {
    fn create(
        source: &Path,
        target: &Path,
        provenance: &std::collections::BTreeMap<String, String>,
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

    fn next(&mut self) -> Option<Located> {
        self.left.next()
    }

    fn unchanged(&mut self, located: &Located) -> Result<(), MethodError> {
        let width = width(&located.entry.dtype).ok_or_else(|| self.odd(located))?;
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

    fn changed(&mut self, located: &Located, delta: &Matrix, rounding: &mut Rounding) -> Result<(), MethodError> {
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
            _ => return Err(self.odd(located)),
        };
        let mut bytes = Vec::new();
        let mut changes = delta.data().iter();
        let (to, target) = (&mut self.to, &self.target);
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

    fn odd(&self, located: &Located) -> MethodError {
        let Located { entry, .. } = located;
        let path = self.source.display();
        MethodError::Export(format!("{path}: tensor {:?} is {}, which cannot be merged into", entry.name, entry.dtype))
    }

    fn finish(mut self) -> Result<(), MethodError> {
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
