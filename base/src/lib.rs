//! Base-model files. A base model is described once, from its config, its file headers and its
//! digests. The weights stay where they are.

pub mod architecture;
mod error;
mod files;
mod folder;
pub mod gguf;
pub mod gguf_names;
mod single_file;
mod targets;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use rondo_proto::v1;

pub use error::BaseError;
pub use files::{ADAPTER_FILE, HEAD_FILE, is_gguf, is_weights};
pub use targets::{ALL_LINEAR, find_targets};

use files::{describe_file, digest_of, size_of};

/// What headers say of a model.
struct Model {
    architecture: String,
    parameters: u64,
    hidden_size: u32,
    max_positions: u32,
    linears: Vec<v1::LinearLayer>,
}

/// Describes the model at a path: a folder with config.json, tokenizer.json and one or more
/// .safetensors files, or a single .gguf file. Reads headers for the shapes and every byte for the
/// digests; holds no tensor.
///
/// # Errors
/// A file is missing, cannot be read or is damaged; the architecture is not supported; the weights
/// do not fit the config.
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
    let (dir, there) = model_files(path)?;
    let there: BTreeSet<String> = there.into_iter().collect();
    for file in &base.files {
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

#[cfg(test)]
mod tests;
