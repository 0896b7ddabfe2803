//! Base-model files. A base model is described once, from its config, its file headers and its digests; the weights stay
//! where they are.

pub mod architecture;
mod folder;
pub mod gguf;
pub mod gguf_names;
mod single_file;
mod targets;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::gguf::GgufError;
use rondo_proto::digest::Digest;
use rondo_proto::manifest::ManifestError;
use rondo_proto::v1;

pub use targets::find_targets;
pub use weights::{ADAPTER_FILE, HEAD_FILE, is_weights};

/// Why a model folder or file cannot serve as a base, or is not the one it should be.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// A file or the folder cannot be read.
    #[error("{}", unread(.path, .source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that a base needs is not there.
    #[error("{dir} holds no {file}; a base needs config.json, tokenizer.json and at least one .safetensors file, or is one .gguf file", dir = .dir.display())]
    MissingFile {
        /// The folder.
        dir: PathBuf,
        /// What is missing.
        file: String,
    },
    /// config.json is no JSON or lacks a key.
    #[error("{path}: {problem}", path = .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A model of a family that is not supported.
    #[error("{path}: model_type {model_type:?} is not supported; supported are: {supported}", path = .path.display())]
    Architecture {
        /// The config file.
        path: PathBuf,
        /// What it says.
        model_type: String,
        /// What is known.
        supported: String,
    },
    /// A weights file is damaged.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A .gguf file is damaged or not supported.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The weights do not fit the config.
    #[error("{dir}: {problem}", dir = .dir.display())]
    Weights {
        /// The folder.
        dir: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The folder or file is not the registered base: one file differs.
    #[error("{dir} is not base {base:?}: {file} {problem}", dir = .dir.display())]
    Differs {
        /// The folder, or the .gguf file.
        dir: PathBuf,
        /// Name of the base.
        base: String,
        /// The file that differs.
        file: String,
        /// How.
        problem: String,
    },
    /// A target pattern matches no linear layer.
    #[error("target {pattern:?} matches no linear layer of base {base:?}{}; there are: {there_are}", .nearest.as_ref().map(|near| format!(", did you mean {near:?}?")).unwrap_or_default())]
    NoTarget {
        /// The pattern.
        pattern: String,
        /// Name of the base.
        base: String,
        /// The name most like it.
        nearest: Option<String>,
        /// The names there are, without layer numbers.
        there_are: String,
    },
}

fn unread(path: &Path, source: &io::Error) -> String {
    let path = path.display();
    match source.kind() {
        io::ErrorKind::NotFound => format!(
            "{path} is not there; a base is a folder with config.json, tokenizer.json and .safetensors files, or one .gguf \
             file"
        ),
        _ => format!("cannot read {path}: {source}"),
    }
}

/// What headers say of a model.
struct Model {
    architecture: String,
    parameters: u64,
    hidden_size: u32,
    max_positions: u32,
    linears: Vec<v1::LinearLayer>,
}

/// Whether a model's path is that of a single .gguf file rather than a folder.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && !path.is_dir()
}

/// Describes the model at a path: a folder with config.json, tokenizer.json and one or more .safetensors files, or a
/// single .gguf file. Reads headers for the shapes and every byte for the digests; holds no tensor.
pub fn describe(path: &Path, name: &str) -> Result<v1::BaseModel, BaseError> {
    let (dir, names) = model_files(path)?;
    let model = if is_gguf(path) { single_file::model(path)? } else { folder::model(path, &names)? };
    let files = names.iter().map(|file| describe_file(dir, file)).collect::<Result<Vec<_>, _>>()?;
    Ok(v1::BaseModel {
        name: name.to_owned(),
        digest: digest_of(&files).to_string(),
        architecture: model.architecture,
        parameters: model.parameters,
        hidden_size: model.hidden_size,
        max_positions: model.max_positions,
        linears: model.linears,
        files,
    })
}

/// Checks that a folder or .gguf file is exactly the registered model; an error names the file that differs.
pub fn check(path: &Path, base: &v1::BaseModel) -> Result<(), BaseError> {
    let differs = |file: &str, problem: String| BaseError::Differs {
        dir: path.to_owned(),
        base: base.name.clone(),
        file: file.to_owned(),
        problem,
    };
    let (dir, there) = model_files(path)?;
    let there: BTreeSet<String> = there.into_iter().collect();
    for file in &base.files {
        if !there.contains(&file.name) {
            return Err(differs(&file.name, "is missing".to_owned()));
        }
        // Sizes are compared first: a wrong download shows at once, without a pass over all weights.
        let bytes = size_of(&dir.join(&file.name))?;
        if bytes != file.bytes {
            return Err(differs(&file.name, format!("has {bytes} bytes, expected {}", file.bytes)));
        }
    }
    if let Some(extra) = there.iter().find(|name| !base.files.iter().any(|file| file.name == **name)) {
        return Err(differs(extra, "is not part of the registered base".to_owned()));
    }
    for file in &base.files {
        let found = describe_file(dir, &file.name)?;
        if found.digest != file.digest {
            return Err(differs(&file.name, format!("has digest {}, expected {}", found.digest, file.digest)));
        }
    }
    let digest = digest_of(&base.files).to_string();
    if digest != base.digest {
        let problem = format!("sum up to {digest}, the base is registered as {}", base.digest);
        return Err(differs("the digests of its files", problem));
    }
    Ok(())
}

/// The folder and, sorted, the names of the files in it that the model at this path is made of.
fn model_files(path: &Path) -> Result<(&Path, Vec<String>), BaseError> {
    if !is_gguf(path) {
        return Ok((path, folder::files(path)?));
    }
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8; rename it");
        BaseError::Io { path: path.to_owned(), source }
    })?;
    Ok((path.parent().unwrap_or(Path::new("")), vec![name.to_owned()]))
}

fn size_of(path: &Path) -> Result<u64, BaseError> {
    let io_error = |source| BaseError::Io { path: path.to_owned(), source };
    Ok(std::fs::metadata(path).map_err(io_error)?.len())
}

fn describe_file(dir: &Path, name: &str) -> Result<v1::BaseFile, BaseError> {
    let path = dir.join(name);
    let digest = Digest::of_file(&path).map_err(|source| BaseError::Io { path: path.clone(), source })?;
    Ok(v1::BaseFile { name: name.to_owned(), bytes: size_of(&path)?, digest: digest.to_string() })
}

/// The base's digest: BLAKE3 over one line "name NUL digest LF" per file, in the order of the names.
fn digest_of(files: &[v1::BaseFile]) -> Digest {
    let lines: BTreeMap<&str, &str> = files.iter().map(|file| (file.name.as_str(), file.digest.as_str())).collect();
    let text: String = lines.iter().map(|(name, digest)| format!("{name}\0{digest}\n")).collect();
    Digest::of(text.as_bytes())
}

#[cfg(test)]
mod tests;
