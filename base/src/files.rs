//! The files that a base is made of: which they are, their sizes and digests.

use std::collections::BTreeMap;
use std::path::Path;

use rondo_proto::{Digest, v1};

use crate::error::BaseError;

/// A model's sizes and choices.
pub const CONFIG_FILE: &str = "config.json";

/// How texts become tokens.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// A classifier head that Rondo exported, beside an adapter or beside merged weights.
pub const HEAD_FILE: &str = "rondo_head.safetensors";

/// An adapter's tensors, as PEFT names the file.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";

/// Whether a file of this name may hold weights of a base; which of a folder's do,
/// [`crate::WeightFiles`] decides. Heads and adapters that Rondo writes into the same folder
/// belong to what was trained on a base, never to the base.
pub fn is_weights(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "safetensors")
        && ![HEAD_FILE, ADAPTER_FILE].contains(&name)
}

/// Whether a model's path is that of a single .gguf file rather than a folder.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && !path.is_dir()
}

/// Size of a file in bytes.
pub(crate) fn size_of(path: &Path) -> Result<u64, BaseError> {
    let io_error = |source| BaseError::Io { path: path.to_owned(), source };
    Ok(std::fs::metadata(path).map_err(io_error)?.len())
}

/// Name, size and digest of a file; reads all of it.
pub(crate) fn describe_file(dir: &Path, name: &str) -> Result<v1::BaseFile, BaseError> {
    let path = dir.join(name);
    let digest = Digest::of_file(&path).map_err(|source| BaseError::Io { path: path.clone(), source })?;
    Ok(v1::BaseFile { name: name.to_owned(), bytes: size_of(&path)?, digest: digest.to_string() })
}

/// The base's digest: BLAKE3 over one line "name NUL digest LF" per file, in the order of the
/// names.
pub(crate) fn digest_of(files: &[v1::BaseFile]) -> Digest {
    let lines: BTreeMap<&str, &str> = files.iter().map(|file| (file.name.as_str(), file.digest.as_str())).collect();
    let text: String = lines.iter().map(|(name, digest)| format!("{name}\0{digest}\n")).collect();
    Digest::of(text.as_bytes())
}
