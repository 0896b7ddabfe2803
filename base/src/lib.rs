//! Base-model files. A base model is described once, from its config, its file headers and its
//! digests. The weights stay where they are. [`Checkpoint`] opens and checks them for everybody.

pub mod architecture;
pub mod checkpoint;
pub mod config;
mod error;
mod files;
pub mod gguf;
pub mod gguf_names;
mod index;
mod json;
mod targets;
mod tensors;
pub mod tokens;
mod weight_files;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use rondo_proto::placeholder::Placeholder;
use rondo_proto::v1;

pub use checkpoint::Checkpoint;
pub use error::BaseError;
pub use files::{ADAPTER_FILE, CONFIG_FILE, HEAD_FILE, TOKENIZER_FILE, is_gguf, is_weights};
pub use index::{INDEX_FILE, Index};
pub use json::read_json;
pub use targets::{ALL_LINEAR, find_targets};
pub use weight_files::{WeightFiles, without_index};

use files::{describe_file, digest_of, size_of};

/// Describes the model at a path: a folder with config.json, tokenizer.json and one or more
/// .safetensors files, or a single .gguf file. Reads headers for the shapes and every byte for the
/// digests; holds no tensor. What is described here the trainer loads: both go through
/// [`Checkpoint::open`].
///
/// # Errors
/// A file is missing, cannot be read or is damaged; the architecture is not supported; the weights
/// do not fit the config.
pub fn describe(path: &Path, name: &str) -> Result<v1::BaseModel, BaseError> {
    let ModelFiles { dir, names, .. } = ModelFiles::find(path)?;
    let model = Checkpoint::open(path)?;
    let files = names.iter().map(|file| describe_file(dir, file)).collect::<Result<Vec<_>, _>>()?;
    Ok(v1::BaseModel {
        name: name.to_owned(),
        digest: digest_of(&files).to_string(),
        token_digest: tokens::token_digest(path)?.map(|digest| digest.to_string()).unwrap_or_default(),
        architecture: model.config.architecture().model_type.to_owned(),
        parameters: model.parameters(),
        hidden_size: u32::try_from(model.config.hidden()).unwrap_or(u32::MAX),
        max_positions: u32::try_from(model.config.max_positions()).unwrap_or(u32::MAX),
        linears: model.linears(),
        files,
    })
}

/// Checks that a folder or .gguf file is exactly the registered model.
///
/// # Errors
/// [`BaseError::Differs`] names the first file that differs; a file cannot be read.
pub fn check(path: &Path, base: &v1::BaseModel) -> Result<(), BaseError> {
    let differs = |file: &str, problem: String| BaseError::Differs {
        dir: path.to_owned(),
        base: base.name.clone(),
        file: file.to_owned(),
        problem,
    };
    let ModelFiles { dir, names, passed_over } = ModelFiles::find(path)?;
    let there: BTreeSet<String> = names.into_iter().collect();
    for file in &base.files {
        if passed_over.contains(&file.name) {
            let problem = "counts in the registered base, but is no part of the model; register the base again";
            return Err(differs(&file.name, problem.to_owned()));
        }
        if !there.contains(&file.name) {
            return Err(differs(&file.name, "is missing".to_owned()));
        }
        // Sizes are compared first, so that a wrong download shows without reading all weights.
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

/// What a model at a path is made of.
struct ModelFiles<'p> {
    /// The folder.
    dir: &'p Path,
    /// Names of its files there, sorted.
    names: Vec<String>,
    /// Weights beside them that do not count.
    passed_over: Vec<String>,
}

impl<'p> ModelFiles<'p> {
    fn find(path: &'p Path) -> Result<Self, BaseError> {
        if !is_gguf(path) {
            return Self::of_folder(path);
        }
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8; rename it");
            BaseError::Io { path: path.to_owned(), source }
        })?;
        let dir = path.parent().unwrap_or(Path::new(""));
        Ok(Self { dir, names: vec![name.to_owned()], passed_over: Vec::new() })
    }

    fn of_folder(dir: &'p Path) -> Result<Self, BaseError> {
        let io = |path: &Path, source| BaseError::Io { path: path.to_owned(), source };
        // A folder that is not there is said so, rather than that it lacks a file.
        std::fs::read_dir(dir).map_err(|source| io(dir, source))?;
        for needed in [CONFIG_FILE, TOKENIZER_FILE] {
            let path = dir.join(needed);
            if std::fs::symlink_metadata(&path).is_err() {
                return Err(BaseError::MissingFile { dir: dir.to_owned(), file: needed.to_owned() });
            }
            if let Some(placeholder) = Placeholder::at(&path).map_err(|source| io(&path, source))? {
                return Err(BaseError::Config { path, problem: placeholder.to_string() });
            }
        }
        let WeightFiles { counted: mut names, passed_over, .. } = WeightFiles::find(dir)?;
        names.extend([CONFIG_FILE, TOKENIZER_FILE].map(str::to_owned));
        names.sort();
        Ok(Self { dir, names, passed_over })
    }
}

#[cfg(test)]
pub(crate) mod tests;
