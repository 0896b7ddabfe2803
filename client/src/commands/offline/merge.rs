//! `rondo-client merge`: an exported adapter put into the weights of its base model.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use rondo_base::Checkpoint;
use rondo_methods::{MergedReport, MethodError};
use serde_json::json;

use super::adapted_model;
use super::error::OfflineError;
use super::out_dir::check_empty;

/// Writes a base model's weights with an adapter in them, for programs that know no adapters
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client merge --model models/smollm2-135m --adapter adapter --out merged

The folder loads with transformers as the base does. Weights keep the number formats of the base's files.")]
pub struct MergeArgs {
    /// The base model: a Hugging Face folder (config.json, *.safetensors, tokenizer.json)
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Folder of an adapter that `rondo-client train` or `rondo adapter
    /// export` wrote, or another one of PEFT's LoRA format
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Folder to make; it must be empty or not there yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Merges and prints the outcome.
///
/// # Errors
/// The output folder is not empty, the adapter or the model cannot be read, the model is a GGUF
/// file, the adapter does not fit the model, or a file or the outcome cannot be written.
pub fn merge(args: &MergeArgs, out: &mut dyn Write) -> Result<(), OfflineError> {
    check_empty(&args.out)?;
    let adapter = adapted_model::read(&args.adapter)?;
    if rondo_base::is_gguf(&args.model) {
        return Err(OfflineError::Method(MethodError::PackedBase { path: args.model.clone() }));
    }
    let name = args.model.file_name().map_or_else(|| "base".to_owned(), |name| name.to_string_lossy().into_owned());
    let model = rondo_base::describe(&args.model, &name)?;
    if let Some(remark) = Checkpoint::open(&args.model)?.remark() {
        tracing::warn!("{remark}");
    }
    adapted_model::warn_of_another_base(&args.model, &args.adapter, &adapter, &model);
    let MergedReport { files, merged, rounding } = adapter.merge(&model, &args.model, &args.out)?;
    if args.json {
        return Ok(writeln!(out, "{}", json!({ "merged": merged, "rounding": rounding, "files": files }))?);
    }
    writeln!(out, "{merged} weights changed, {} files in {}", files.len(), args.out.display())?;
    if let Some(rounding) = rounding {
        writeln!(out, "rounding to the files' number format: {rounding:.1e} of the change")?;
    }
    Ok(())
}
