//! `rondo adapter inspect`: what an adapter holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use rondo_methods::export::peft::{self, PeftAdapter, PeftTarget};
use serde::Serialize;

use crate::context::Context;
use crate::error::CliError;
use crate::output::{facts, table};
use crate::tensor_files::{bytes, name, norm, open};
use crate::text::size;

/// What to look at.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rondo adapter inspect adapter\n  rondo adapter inspect adapter/adapter_model.safetensors --json"
)]
pub struct InspectArgs {
    /// A PEFT folder, any folder with .safetensors files, or one such file
    path: PathBuf,
}

#[derive(Debug, Serialize)]
struct Inspected {
    path: PathBuf,
    adapter: Option<Peft>,
    files: Vec<File>,
}

/// What a PEFT folder means.
#[derive(Debug, Serialize)]
struct Peft {
    base_model: String,
    targets: Vec<Target>,
    labels: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Target {
    name: String,
    rank: usize,
    scale: f64,
    delta_norm: f64,
}

#[derive(Debug, Serialize)]
struct File {
    name: String,
    bytes: u64,
    numbers: usize,
    metadata: BTreeMap<String, String>,
    tensors: Vec<Tensor>,
}

#[derive(Debug, Serialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    norm: Option<f64>,
}

/// Reads and shows.
pub(super) fn run(args: InspectArgs, context: &mut Context) -> Result<(), CliError> {
    let inspected = inspect(&args.path)?;
    context.output.show(&inspected, words)
}

fn inspect(path: &Path) -> Result<Inspected, CliError> {
    let adapter = path.join("adapter_config.json").exists().then(|| peft::load(path)).transpose()?;
    let mut files = Vec::new();
    for file in open(path)? {
        let mut tensors = Vec::new();
        for entry in file.entries() {
            // Only numbers that can be read have a norm; an integer buffer has none.
            let norm = if ["F64", "F32", "F16", "BF16"].contains(&entry.dtype.as_str()) {
                Some(norm(&file, &entry.name)?)
            } else {
                None
            };
            tensors.push(Tensor { name: entry.name, shape: entry.shape, dtype: entry.dtype, norm });
        }
        let numbers = tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
        let metadata = file.metadata().clone();
        files.push(File { name: name(&file), bytes: bytes(&file)?, numbers, metadata, tensors });
    }
    Ok(Inspected { path: path.to_owned(), adapter: adapter.map(Peft::from), files })
}

impl From<PeftAdapter> for Peft {
    fn from(adapter: PeftAdapter) -> Self {
        let target = |target: PeftTarget| Target {
            rank: target.a.shape[0],
            scale: target.scale,
            delta_norm: target.dense().norm(),
            name: target.name,
        };
        Self {
            base_model: adapter.base_model_name,
            targets: adapter.targets.into_iter().map(target).collect(),
            labels: adapter.head.map(|head| head.labels).unwrap_or_default(),
        }
    }
}

fn words(inspected: &Inspected) -> String {
    let mut text = String::new();
    if let Some(adapter) = &inspected.adapter {
        text += &facts(&[
            ("PEFT adapter", inspected.path.display().to_string()),
            ("base model", adapter.base_model.clone()),
            ("labels", adapter.labels.join(", ")),
        ]);
        let row = |target: &Target| {
            let scale = format!("{:.4}", target.scale);
            let norm = format!("{:.4e}", target.delta_norm);
            vec![target.name.clone(), target.rank.to_string(), scale, norm]
        };
        let rows = adapter.targets.iter().map(row).collect();
        text += &format!("\n{}\n", table(&["TARGET", "RANK", "SCALE", "NORM OF THE CHANGE"], rows, "no targets"));
    }
    for file in &inspected.files {
        text +=
            &format!("{}: {} tensors, {} numbers, {}\n", file.name, file.tensors.len(), file.numbers, size(file.bytes));
        for (key, value) in &file.metadata {
            text += &format!("  {key} = {value}\n");
        }
        let row = |tensor: &Tensor| {
            let norm = tensor.norm.map_or_else(|| "-".to_owned(), |norm| format!("{norm:.4e}"));
            vec![format!("  {}", tensor.name), format!("{:?}", tensor.shape), tensor.dtype.clone(), norm]
        };
        let rows = file.tensors.iter().map(row).collect();
        text += &format!("{}\n", table(&["  TENSOR", "SHAPE", "DTYPE", "NORM"], rows, "  no tensors"));
    }
    text
}
