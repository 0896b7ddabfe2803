//! What tensors a file holds: names, shapes and dtypes, read from a safetensors header alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use crate::placeholder::Placeholder;
use crate::run_file::Dtype;

/// Largest header that is read; a hostile file must not make the reader allocate what it claims. A
/// model with a million tensors needs about 100 MB, an adapter of hundreds of targets far less than
/// one.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;

/// How many differences `diff` spells out before it only counts.
const DIFFERENCES_SHOWN: usize = 3;

/// Name, shape and number format of one tensor on the wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Full name, for example `encoder.layer.0.attention.self.query.lora_B` or `head.weight`.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// "F32", "BF16", ... as safetensors spells it.
    pub dtype: String,
}

impl TensorEntry {
    /// How many numbers the tensor holds; saturates where a header claims more than memory could.
    pub fn numbers(&self) -> usize {
        self.shape.iter().fold(1, |product, length| product.saturating_mul(*length))
    }
}

/// Width and spelling of a wire dtype in a safetensors header.
pub fn safetensors_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "F32",
        Dtype::Bf16 => "BF16",
    }
}

/// Why a file's header could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no safetensors file, or a damaged one.
    #[error("{path} is not a valid safetensors file: {problem}", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A safetensors file behind its checked header.
#[derive(Debug)]
pub struct TensorSource {
    /// The file, open for reading.
    pub file: File,
    /// The tensors, sorted by name.
    pub tensors: Vec<Located>,
    /// The `__metadata__` strings.
    pub metadata: BTreeMap<String, String>,
}

/// A tensor and where its numbers begin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located {
    /// Name, shape, number format.
    pub entry: TensorEntry,
    /// Offset of the first byte in the file.
    pub offset: u64,
}

/// The tensors of a safetensors file, sorted by name. Reads the header only, and checks that the
/// file is exactly as long as the header says.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> Result<Vec<TensorEntry>, ManifestError> {
    Ok(open(path)?.tensors.into_iter().map(|located| located.entry).collect())
}

/// Opens a safetensors file and reads its header: of bounded size, offsets without holes, the file
/// exactly as long as the header says.
///
/// # Errors
/// The file cannot be read, or it is not a valid safetensors file.
pub fn open(path: &Path) -> Result<TensorSource, ManifestError> {
    let io_error = |source| ManifestError::Io { path: path.to_owned(), source };
    let invalid = |problem: String| ManifestError::Invalid { path: path.to_owned(), problem };
    if let Some(placeholder) = Placeholder::at(path).map_err(io_error)? {
        return Err(invalid(format!("it {placeholder}")));
    }
    let mut file = File::open(path).map_err(io_error)?;
    let length = file.metadata().map_err(io_error)?.len();
    if length < 8 {
        return Err(invalid(format!("it has {length} bytes, too few for a header")));
    }
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(io_error)?;
    let header_bytes = u64::from_le_bytes(prefix);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(invalid(format!("its header claims {header_bytes} bytes, more than {MAX_HEADER_BYTES}")));
    }
    if header_bytes > length - 8 {
        return Err(invalid(format!("its header claims {header_bytes} bytes, the file has {length}")));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header).map_err(io_error)?;
    // The library checks that offsets follow each other without gaps and fit shapes and dtypes,
    // with checked arithmetic.
    let header: Metadata = serde_json::from_slice(&header).map_err(|error| invalid(error.to_string()))?;
    let expected = (8 + header_bytes).saturating_add(header.data_len() as u64);
    if expected != length {
        return Err(invalid(format!("its header describes a file of {expected} bytes, it has {length}")));
    }
    let located = |(name, info): (String, &TensorInfo)| Located {
        entry: TensorEntry { name, shape: info.shape.clone(), dtype: info.dtype.to_string() },
        offset: 8 + header_bytes + info.data_offsets.0 as u64,
    };
    let mut tensors: Vec<Located> = header.tensors().into_iter().map(located).collect();
    tensors.sort();
    let metadata = header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(TensorSource { file, tensors, metadata })
}

/// What differs between the tensors that were expected and those that came, in words; nothing when
/// they are equal. The order of either list does not matter.
pub fn diff(expected: &[TensorEntry], got: &[TensorEntry]) -> Option<String> {
    let expected: BTreeMap<&str, &TensorEntry> = expected.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let found: BTreeMap<&str, &TensorEntry> = got.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut differences = Vec::new();
    for (name, want) in &expected {
        match found.get(name) {
            None => differences.push(format!("`{name}` {:?} is missing", want.shape)),
            Some(have) if have.shape != want.shape => {
                differences.push(format!("`{name}` has shape {:?}, expected {:?}", have.shape, want.shape));
            }
            Some(have) if have.dtype != want.dtype => {
                differences.push(format!("`{name}` has dtype {}, expected {}", have.dtype, want.dtype));
            }
            Some(_) => {}
        }
    }
    for (name, have) in &found {
        if !expected.contains_key(name) {
            differences.push(format!("`{name}` {:?} was not expected", have.shape));
        }
    }
    if got.len() != found.len() {
        differences.push("a tensor name comes twice".to_owned());
    }
    if differences.is_empty() {
        return None;
    }
    let more = differences.len().saturating_sub(DIFFERENCES_SHOWN);
    let mut words = differences.into_iter().take(DIFFERENCES_SHOWN).collect::<Vec<_>>().join("; ");
    if more > 0 {
        words.push_str(&format!("; and {more} more"));
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use safetensors::tensor::TensorView;

    fn entry(name: &str, shape: &[usize]) -> TensorEntry {
        TensorEntry { name: name.to_owned(), shape: shape.to_vec(), dtype: "F32".to_owned() }
    }

    fn sample() -> Vec<u8> {
        let data = vec![0u8; 24];
        let a = TensorView::new(safetensors::Dtype::F32, vec![2, 3], &data).unwrap();
        let b = TensorView::new(safetensors::Dtype::BF16, vec![4], &data[..8]).unwrap();
        safetensors::serialize([("z.lora_B", a), ("a.lora_A", b)], None).unwrap()
    }

    fn read_bytes(bytes: &[u8]) -> Result<Vec<TensorEntry>, ManifestError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, bytes).unwrap();
        read(&path)
    }

    #[test]
    fn names_shapes_and_dtypes_come_sorted_by_name() {
        let tensors = read_bytes(&sample()).unwrap();
        assert_eq!(tensors[0], TensorEntry { dtype: "BF16".to_owned(), ..entry("a.lora_A", &[4]) });
        assert_eq!(tensors[1], entry("z.lora_B", &[2, 3]));
        assert_eq!(tensors[1].numbers(), 6);
    }

    #[test]
    fn an_open_file_knows_where_its_numbers_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let numbers: Vec<u8> = (1..=8).collect();
        let one = TensorView::new(safetensors::Dtype::F32, vec![1], &numbers[..4]).unwrap();
        let two = TensorView::new(safetensors::Dtype::F32, vec![1], &numbers[4..]).unwrap();
        let marks = std::collections::HashMap::from([("k".to_owned(), "v".to_owned())]);
        std::fs::write(&path, safetensors::serialize([("b", one), ("a", two)], Some(marks)).unwrap()).unwrap();
        let source = open(&path).unwrap();
        assert_eq!(source.metadata, BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        let bytes = std::fs::read(&path).unwrap();
        let at = |index: usize| &bytes[source.tensors[index].offset as usize..][..4];
        assert_eq!((source.tensors[0].entry.name.as_str(), at(0)), ("a", &numbers[4..]));
        assert_eq!((source.tensors[1].entry.name.as_str(), at(1)), ("b", &numbers[..4]));
    }

    #[test]
    fn a_file_of_another_length_is_refused() {
        let mut longer = sample();
        longer.push(0);
        assert!(read_bytes(&longer).unwrap_err().to_string().contains("describes a file of"));
        let whole = sample();
        assert!(read_bytes(&whole[..whole.len() - 1]).is_err());
    }

    #[test]
    fn a_header_that_claims_too_much_is_refused_before_it_is_read() {
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        assert!(read_bytes(&bytes).unwrap_err().to_string().contains("more than"));
    }

    #[test]
    fn what_lies_in_place_of_a_file_is_named() {
        let error = read_bytes(b"").unwrap_err().to_string();
        assert!(error.contains("x.safetensors is not a valid safetensors file: it is empty"), "{error}");
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 40000\n";
        let error = read_bytes(pointer).unwrap_err().to_string();
        assert!(error.contains("Git LFS pointer") && error.contains("git lfs pull"), "{error}");
    }

    #[test]
    fn a_difference_is_told_in_words() {
        let want = [entry("a", &[2, 2]), entry("b", &[1])];
        assert_eq!(diff(&want, &want), None);
        assert_eq!(diff(&want, &[entry("b", &[1]), entry("a", &[2, 2])]), None);
        assert_eq!(diff(&want, &want[..1]).unwrap(), "`b` [1] is missing");
        let other = [entry("a", &[2, 3]), entry("c", &[1])];
        assert_eq!(
            diff(&want, &other).unwrap(),
            "`a` has shape [2, 3], expected [2, 2]; `b` [1] is missing; `c` [1] was not expected"
        );
        let half = TensorEntry { dtype: "BF16".to_owned(), ..entry("a", &[2, 2]) };
        assert_eq!(diff(&want[..1], &[half]).unwrap(), "`a` has dtype BF16, expected F32");
        assert!(diff(&[], &vec![entry("q", &[1]); 2]).unwrap().contains("twice"));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read_bytes(&bytes).is_err());
        }

        #[test]
        fn a_damaged_header_never_panics(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = read_bytes(&bytes);
        }

        #[test]
        fn garbage_json_of_an_honest_length_never_panics(text in "[\\[\\]{}:,\"a-z0-9_-]{0,120}") {
            let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(text.as_bytes());
            let _ = read_bytes(&bytes);
        }
    }
}
