//! `rondo-client fetch`: a model from a Hugging Face hub into a folder.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rondo_base::BaseError;
use serde_json::json;

use crate::hub::{DEFAULT_REVISION, Hub, HubError, Wanted};

/// Fetches a model from a Hugging Face hub: config, tokenizer and weights, or one .gguf file
#[derive(Debug, Args)]
#[command(
    after_help = "HF_ENDPOINT names another hub, HF_HOME the folder for downloads (default ~/.cache/huggingface).
A download that was cut goes on where it stopped when the command is given again.

Example:
  rondo-client fetch owner/name --revision 0c1f... --to models/name
  rondo-client fetch owner/name-gguf --file name.Q4_1.gguf --to models"
)]
pub struct FetchArgs {
    /// The repository, owner/name
    pub repository: String,
    /// Commit, tag or branch
    #[arg(long, default_value = DEFAULT_REVISION)]
    pub revision: String,
    /// The .gguf file of the repository that is the model
    #[arg(long)]
    pub file: Option<String>,
    /// Folder that gets the files
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why fetching failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// What came is no base.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The folder cannot be written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The outcome cannot be printed.
    #[error("output: {0}")]
    Output(io::Error),
}

/// Fetches, puts the files in place and prints the digest that run files name.
///
/// # Errors
/// A name is malformed, the hub fails or refuses, the files are no base model or cannot be put in
/// place, or the outcome cannot be printed.
pub fn fetch(args: &FetchArgs, out: &mut dyn Write) -> Result<(), FetchError> {
    let wanted = Wanted::new(&args.repository, &args.revision, args.file.as_deref())?;
    let cached = Hub::from_env()?.fetch(&wanted)?;
    let path = place(&cached, &args.to)?;
    let name = args.repository.rsplit('/').next().unwrap_or_default();
    let base = rondo_base::describe(&path, name)?;
    let printed = if args.json {
        writeln!(
            out,
            "{}",
            json!({"path": path, "digest": base.digest, "architecture": base.architecture, "parameters": base.parameters})
        )
    } else {
        writeln!(
            out,
            "{} ({}, {} parameters)\ndigest {}",
            path.display(),
            base.architecture,
            base.parameters,
            base.digest
        )
    };
    printed.map_err(FetchError::Output)
}

/// Puts a cached file, or the files of a cached folder, into `to`; answers the model's path there.
fn place(cached: &Path, to: &Path) -> Result<PathBuf, FetchError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Io { path, source }
    };
    fs::create_dir_all(to).map_err(io(to))?;
    if cached.is_file() {
        let path = to.join(cached.file_name().unwrap_or_default());
        link_or_copy(cached, &path).map_err(io(&path))?;
        return Ok(path);
    }
    for entry in fs::read_dir(cached).map_err(io(cached))? {
        let from = entry.map_err(io(cached))?.path();
        let path = to.join(from.file_name().unwrap_or_default());
        if from.is_file() {
            link_or_copy(&from, &path).map_err(io(&path))?;
        }
    }
    Ok(to.to_owned())
}

/// A second name for the file where the file system allows, so
/// that weights take their space once; else a copy.
fn link_or_copy(from: &Path, path: &Path) -> io::Result<()> {
    // The cache's own entries are links to its contents.
    let from = fs::canonicalize(from)?;
    let part = path.with_extension("part");
    for old in [&part, path] {
        match fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if fs::hard_link(&from, path).is_ok() {
        return Ok(());
    }
    fs::copy(&from, &part)?;
    fs::rename(&part, path)
}
