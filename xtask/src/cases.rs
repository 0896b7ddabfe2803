//! `cargo xtask cases`: inputs that people really have, tried on the built programs. What is right
//! comes from transformers, peft, pyarrow and Python itself (xtask/cases).

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::cargo;
use crate::interop;
use crate::paths::Paths;
use crate::process;
use crate::setup::{self, SetupArgs};

/// The readers that are fed damaged files; xtask/cases/mutated.py has a reference for each.
const READERS: [&str; 9] = ["csv", "json", "jsonl", "parquet", "safetensors", "gguf", "config", "template", "adapter"];

/// `cargo xtask cases`
#[derive(Args)]
pub(crate) struct CasesArgs {
    /// Run the cases whose names hold this part, and no damaged files; repeatable.
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Feed this reader damaged files, and run no cases; repeatable.
    #[arg(long, value_name = "READER", value_parser = READERS)]
    reader: Vec<String>,
}

/// Makes the Python environment, builds, runs the cases and feeds the readers damaged files.
pub(crate) fn run(paths: &Paths, args: &CasesArgs) -> Result<()> {
    setup::run(paths, &SetupArgs::default())?;
    let python = interop::environment(paths)?;
    let binaries = cargo::binaries(paths)?;
    let programs = binaries.client.parent().unwrap_or(Path::new("."));
    let scripts = paths.workspace.join("xtask/cases");
    let goldens = paths.workspace.join("trainer/tests/goldens");
    let work = paths.root.join("cases");
    if args.reader.is_empty() {
        cargo::step("what people's files hold");
        let mut command = Command::new(&python);
        command.arg(scripts.join("run.py")).arg("--programs").arg(programs).arg("--goldens").arg(&goldens);
        command.arg("--work").arg(work.join("inputs")).args(args.only.iter().flat_map(|part| ["--only", part]));
        process::run(&mut command)?;
    }
    if args.only.is_empty() {
        damaged(paths, &python, &goldens, &work, &args.reader)?;
    }
    Ok(())
}

/// Feeds readers damaged files, one Python process each.
fn damaged(paths: &Paths, python: &Path, goldens: &Path, work: &Path, chosen: &[String]) -> Result<()> {
    let examples = cargo::examples(paths)?;
    cargo::step("damaged files");
    let mut wrong = Vec::new();
    for reader in READERS.into_iter().filter(|reader| chosen.is_empty() || chosen.iter().any(|name| name == reader)) {
        let mut command = Command::new(python);
        command.arg(paths.workspace.join("xtask/cases/mutated.py")).arg(reader).arg("--programs").arg(&examples);
        if process::run(command.arg("--goldens").arg(goldens).arg("--work").arg(work.join(reader))).is_err() {
            wrong.push(reader);
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("these readers do not read as the reference does: {}", wrong.join(", "))
    }
}
