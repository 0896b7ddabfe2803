//! Reading PEFT folders back, ours or another program's.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::head::Head;
use super::peft::{CONFIG_FILE, PREFIX, WEIGHTS_FILE};
use crate::error::MethodError;
use crate::file::TensorFile;
use crate::linalg::Matrix;
use crate::tensor::Tensor;

/// A LoRA adapter from a PEFT folder.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftAdapter {
    /// Name or path of the base model, as the folder gives it.
    pub base_model_name: String,
    /// The adapted modules, sorted by name.
    pub targets: Vec<PeftTarget>,
    /// The classifier head, when the folder holds one.
    pub head: Option<Head>,
    /// The weights file's metadata.
    pub provenance: BTreeMap<String, String>,
}

/// One adapted module, dW = scale * b.a.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftTarget {
    /// Module name in the bare base model, for example `encoder.layer.0.attention.self.query`.
    pub name: String,
    /// Inner factor, `[r, in]`.
    pub a: Tensor,
    /// Outer factor, `[out, r]`.
    pub b: Tensor,
    /// alpha / r, or alpha / sqrt(r) where the folder says rsLoRA.
    pub scale: f64,
}

impl PeftTarget {
    /// The change of the weight, `[out, in]`.
    pub fn dense(&self) -> Matrix {
        self.b.to_matrix().times(&self.a.to_matrix()).scaled(self.scale)
    }
}

/// The parts of PEFT's LoraConfig that decide what the weights mean.
#[derive(Deserialize)]
struct Config {
    peft_type: String,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    rank_pattern: BTreeMap<String, usize>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
}

/// Reads a PEFT folder and the head beside it.
pub fn load(dir: &Path) -> Result<PeftAdapter, MethodError> {
    let path = dir.join(CONFIG_FILE);
    let refuse = |problem: String| MethodError::Adapter { path: path.clone(), problem };
    let text = std::fs::read_to_string(&path).map_err(|source| MethodError::io(&path, source))?;
    let config: Config = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    if config.peft_type != "LORA" || config.use_dora {
        return Err(refuse("only plain LoRA can be read".into()));
    }
    let path = dir.join(WEIGHTS_FILE);
    let refuse = |problem: String| MethodError::Adapter { path: path.clone(), problem };
    let file = TensorFile::open(&path)?;
    let mut targets = Vec::new();
    for entry in file.entries() {
        let module = |side: &str| entry.name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(side));
        if module(".lora_B.weight").is_some() {
            continue;
        }
        let Some(name) = module(".lora_A.weight") else {
            return Err(refuse(format!("tensor `{}` is no LoRA factor", entry.name)));
        };
        let (a, b) = (file.read(&entry.name)?, file.read(&format!("{PREFIX}{name}.lora_B.weight"))?);
        let rank = pattern(&config.rank_pattern, name).unwrap_or(config.r);
        let alpha = pattern(&config.alpha_pattern, name).unwrap_or(config.lora_alpha);
        if a.shape.len() != 2 || b.shape.len() != 2 || a.shape[0] != rank || b.shape[1] != rank || rank == 0 {
            return Err(refuse(format!("`{name}` has factors {:?} and {:?}, its rank is {rank}", b.shape, a.shape)));
        }
        let scale = if config.use_rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 };
        targets.push(PeftTarget { name: name.to_owned(), a, b, scale });
    }
    if targets.is_empty() {
        return Err(refuse("it holds no LoRA factors".into()));
    }
    Ok(PeftAdapter {
        base_model_name: config.base_model_name_or_path.unwrap_or_default(),
        targets,
        head: Head::load(dir)?,
        provenance: file.metadata().clone(),
    })
}

/// The value for a module: its full name, or the longest dotted suffix of it that the pattern knows.
fn pattern<T: Copy>(values: &BTreeMap<String, T>, module: &str) -> Option<T> {
    let fits = |key: &str| module == key || module.strip_suffix(key).is_some_and(|rest| rest.ends_with('.'));
    values.iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| key.len()).map(|(_, value)| *value)
}
