//! A base model is described once, from its config, its file headers and its digests; the weights stay where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::architecture::{self, Architecture};
use crate::digest::Digest;
use crate::manifest::{self, ManifestError, TensorEntry};
use crate::nearest::nearest;
use crate::v1;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "safetensors";
/// Largest config.json that is read.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Why a model folder cannot serve as a base, or is not the one it should be.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// A file or the folder cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that a base needs is not there.
    #[error("{dir} holds no {file}; a base needs config.json, tokenizer.json and at least one .safetensors file", dir = .dir.display())]
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
    /// The weights do not fit the config.
    #[error("{dir}: {problem}", dir = .dir.display())]
    Weights {
        /// The folder.
        dir: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The folder is not the registered base: one file differs.
    #[error("{dir} is not base {base:?}: {file} {problem}", dir = .dir.display())]
    Differs {
        /// The folder.
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

/// Describes the model in a folder: config.json, tokenizer.json and every .safetensors file. Reads headers for the
/// shapes and every byte for the digests; holds no tensor.
pub fn describe(dir: &Path, name: &str) -> Result<v1::BaseModel, BaseError> {
    let config_path = dir.join(CONFIG);
    let names = model_files(dir)?;
    let config = read_config(&config_path)?;
    let model_type = text_of(&config, "model_type", &config_path)?;
    let architecture = architecture::find(&model_type).ok_or_else(|| BaseError::Architecture {
        path: config_path.clone(),
        model_type: model_type.clone(),
        supported: architecture::supported(),
    })?;
    let keys = &architecture.config_keys;
    let layers = number_of(&config, keys.layers, &config_path)?;

    let first_position = match architecture.positions_follow_padding {
        true => config.get("pad_token_id").and_then(serde_json::Value::as_u64).unwrap_or(1).saturating_add(1),
        false => 0,
    };
    let first_position = u32::try_from(first_position).unwrap_or(u32::MAX);

    let mut tensors = Vec::new();
    for file in names.iter().filter(|file| is_weights(file)) {
        tensors.extend(manifest::read(&dir.join(file))?);
    }
    let linears = linears(architecture, &tensors);
    let expected = layers as usize * architecture.linears.len();
    if linears.len() != expected {
        let problem = format!(
            "the weights hold {} linear layers, config.json's {layers} layers of a {model_type} model have {expected}",
            linears.len()
        );
        return Err(BaseError::Weights { dir: dir.to_owned(), problem });
    }
    let files = names.iter().map(|file| describe_file(dir, file)).collect::<Result<Vec<_>, _>>()?;
    Ok(v1::BaseModel {
        name: name.to_owned(),
        digest: digest_of(&files).to_string(),
        architecture: model_type,
        // Integer tensors are buffers, such as position ids.
        parameters: tensors.iter().filter(|tensor| is_float(tensor)).map(|tensor| tensor.numbers() as u64).sum(),
        hidden_size: number_of(&config, keys.hidden_size, &config_path)?,
        max_positions: number_of(&config, keys.max_positions, &config_path)?.saturating_sub(first_position),
        linears,
        files,
    })
}

/// Checks that a folder holds exactly the registered model; an error names the file that differs.
pub fn check(dir: &Path, base: &v1::BaseModel) -> Result<(), BaseError> {
    let differs = |file: &str, problem: String| BaseError::Differs {
        dir: dir.to_owned(),
        base: base.name.clone(),
        file: file.to_owned(),
        problem,
    };
    let there: BTreeSet<String> = model_files(dir)?.into_iter().collect();
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

/// The linear layers that the patterns name, in the order of the base, each once. A pattern is a layer's full name or
/// a dotted suffix of it: "query", "self.query", "attention.output.dense".
pub fn find_targets(base: &v1::BaseModel, patterns: &[String]) -> Result<Vec<v1::LinearLayer>, BaseError> {
    for pattern in patterns {
        if !base.linears.iter().any(|linear| matches(&linear.name, pattern)) {
            let mut names: Vec<&str> = Vec::new();
            for linear in &base.linears {
                let name = without_layer(&linear.name);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            let parts = names.iter().flat_map(|name| suffixes(name));
            return Err(BaseError::NoTarget {
                pattern: pattern.clone(),
                base: base.name.clone(),
                nearest: nearest(pattern, parts).map(str::to_owned),
                there_are: if names.is_empty() { "none".to_owned() } else { names.join(", ") },
            });
        }
    }
    let wanted = |linear: &&v1::LinearLayer| patterns.iter().any(|pattern| matches(&linear.name, pattern));
    Ok(base.linears.iter().filter(wanted).cloned().collect())
}

fn matches(name: &str, pattern: &str) -> bool {
    !pattern.is_empty() && suffixes(name).any(|suffix| suffix == pattern)
}

/// The name itself and what is left of it after each dot.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::once(name).chain(name.match_indices('.').map(|(at, _)| &name[at + 1..]))
}

/// What comes after the layer's number, which is the same in every layer.
fn without_layer(name: &str) -> &str {
    let mut rest = name;
    for suffix in suffixes(name) {
        let head = suffix.split('.').next().unwrap_or_default();
        if !head.is_empty() && head.bytes().all(|byte| byte.is_ascii_digit()) {
            rest = suffix.get(head.len() + 1..).unwrap_or(suffix);
        }
    }
    rest
}

/// The files a base is made of, sorted by name.
fn model_files(dir: &Path) -> Result<Vec<String>, BaseError> {
    let io_error = |source| BaseError::Io { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io_error)? {
        let name = entry.map_err(io_error)?.file_name();
        if let Some(name) = name.to_str()
            && (name == CONFIG || name == TOKENIZER || is_weights(name))
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    let missing = |file: &str| BaseError::MissingFile { dir: dir.to_owned(), file: file.to_owned() };
    for needed in [CONFIG, TOKENIZER] {
        if !names.iter().any(|name| name == needed) {
            return Err(missing(needed));
        }
    }
    if !names.iter().any(|name| is_weights(name)) {
        return Err(missing("*.safetensors file"));
    }
    Ok(names)
}

fn is_weights(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == WEIGHTS)
}

fn is_float(tensor: &TensorEntry) -> bool {
    tensor.dtype.starts_with('F') || tensor.dtype == "BF16"
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

/// Linear layers by layer number, then in the order of the architecture's table.
fn linears(architecture: &Architecture, tensors: &[TensorEntry]) -> Vec<v1::LinearLayer> {
    let mut found = BTreeMap::new();
    for tensor in tensors {
        let Some(module) = architecture.strip(&tensor.name).strip_suffix(".weight") else { continue };
        let (Some(place), [out, inp]) = (architecture.linear(module), tensor.shape.as_slice()) else { continue };
        let (out, inp) = if architecture.transposed { (inp, out) } else { (out, inp) };
        let (Ok(out_features), Ok(in_features)) = (u32::try_from(*out), u32::try_from(*inp)) else { continue };
        found.insert(place, v1::LinearLayer { name: module.to_owned(), out_features, in_features });
    }
    found.into_values().collect()
}

fn read_config(path: &Path) -> Result<serde_json::Value, BaseError> {
    let bytes = size_of(path)?;
    let problem = |problem: String| BaseError::Config { path: path.to_owned(), problem };
    if bytes > MAX_CONFIG_BYTES {
        return Err(problem(format!("has {bytes} bytes, more than {MAX_CONFIG_BYTES}")));
    }
    let text = std::fs::read(path).map_err(|source| BaseError::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|error| problem(format!("is not valid JSON: {error}")))
}

fn text_of(config: &serde_json::Value, key: &str, path: &Path) -> Result<String, BaseError> {
    let text = config.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    text.ok_or_else(|| BaseError::Config { path: path.to_owned(), problem: format!("has no text under {key:?}") })
}

fn number_of(config: &serde_json::Value, key: &str, path: &Path) -> Result<u32, BaseError> {
    let number = config.get(key).and_then(serde_json::Value::as_u64).and_then(|number| u32::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| BaseError::Config {
        path: path.to_owned(),
        problem: format!("has no positive whole number under {key:?}"),
    })
}

#[cfg(test)]
#[path = "base_tests.rs"]
mod tests;
