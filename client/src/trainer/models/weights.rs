//! Tensors by name out of the *.safetensors files of a model folder, one at a time: a model is never in memory twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use tch::{Device, Kind, Tensor};

use super::{ModelError, Weight};

/// The header of a safetensors file may not be longer than this, as in the format's own library.
const MAX_HEADER_BYTES: u64 = 100_000_000;

struct Entry {
    file: usize,
    /// From the start of the file.
    offset: u64,
    bytes: usize,
    shape: Vec<usize>,
    dtype: Dtype,
}

/// The files of a folder and the tensors not yet taken out of them.
pub struct WeightFiles {
    dir: PathBuf,
    files: Vec<(PathBuf, File)>,
    entries: BTreeMap<String, Entry>,
    device: Device,
    kind: Kind,
}

impl WeightFiles {
    /// Reads the headers of all *.safetensors files in `dir`. Tensors will be put on `device` as `kind`.
    ///
    /// Names lose a leading `prefix`, and the TensorFlow spelling of layer norms (`gamma`, `beta`) is put right.
    pub fn open(dir: &Path, prefix: &str, device: Device, kind: Kind) -> Result<Self, ModelError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ModelError::Io { path, source }
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(io(dir))? {
            let path = entry.map_err(io(dir))?.path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                paths.push(path);
            }
        }
        paths.sort();
        if paths.is_empty() {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no *.safetensors files");
            return Err(ModelError::Io { path: dir.to_owned(), source });
        }

        let mut weights = Self { dir: dir.to_owned(), files: Vec::new(), entries: BTreeMap::new(), device, kind };
        for path in paths {
            let mut file = File::open(&path).map_err(io(&path))?;
            let size = file.metadata().map_err(io(&path))?.len();
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
                dtype: info.dtype,
            };
            let name = name.strip_prefix(prefix).unwrap_or(&name);
            let name = match name.rsplit_once('.') {
                Some((norm, "gamma")) if norm.ends_with("LayerNorm") => format!("{norm}.weight"),
                Some((norm, "beta")) if norm.ends_with("LayerNorm") => format!("{norm}.bias"),
                _ => name.to_owned(),
            };
            self.entries.insert(name, entry);
        }
        Ok(())
    }

    /// Takes a tensor of this shape out.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let Some(entry) = self.entries.remove(name) else {
            return Err(ModelError::Missing { dir: self.dir.clone(), name: name.to_owned() });
        };
        if entry.shape != shape {
            return Err(ModelError::Shape {
                dir: self.dir.clone(),
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: entry.shape,
            });
        }
        let (path, file) = &mut self.files[entry.file];
        let kind = match entry.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            other => {
                let problem = format!("tensor {name:?} is {other:?}; weights are F32, F16, BF16 or F64");
                return Err(ModelError::Malformed { path: path.clone(), problem });
            }
        };
        let mut bytes = vec![0; entry.bytes];
        file.seek(SeekFrom::Start(entry.offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| ModelError::Io { path: path.clone(), source })?;
        let size: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let tensor = Tensor::f_from_data_size(&bytes, &size, kind)?;
        Ok(tensor.f_to_device(self.device)?.f_to_kind(self.kind)?)
    }

    /// Takes a matrix of this shape out.
    pub fn take_weight(&mut self, name: &str, shape: &[usize]) -> Result<Weight, ModelError> {
        Ok(Weight::Dense(self.take(name, shape)?))
    }

    /// The same of a matrix `[out, in]` that the file holds as `[in, out]`.
    pub fn take_weight_transposed(&mut self, name: &str, [out, inp]: [usize; 2]) -> Result<Weight, ModelError> {
        Ok(Weight::Dense(self.take(name, &[inp, out])?.f_tr()?.f_contiguous()?))
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
        Err(ModelError::Unknown { dir: self.dir, architecture, names })
    }
}
