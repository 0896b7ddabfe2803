//! `cargo xtask experiment FILE --data DIR`: a federation described in a file,
//! on data of yours, method after method. It prints the held-out measurements
//! before and after by group, bytes and seconds.

mod spec;
mod table;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::spec::Spec;
use self::table::Outcome;
use crate::cargo;
use crate::demo;
use crate::federation::Federation;
use crate::paths::Paths;
use crate::setup::{self, SetupArgs};

/// `cargo xtask experiment`
#[derive(Args)]
#[command(after_help = "Example:
  cargo xtask experiment examples/experiments/dolly.toml --data ~/dolly --method flora")]
pub(crate) struct ExperimentArgs {
    /// What to run: see examples/experiments.
    file: PathBuf,
    /// Folder of the data files that it names.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The base model: a Hugging Face folder or a GGUF file [default:
    /// the one that the file names, fetched by setup].
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Only these methods of the file; repeatable.
    #[arg(long, value_name = "ID")]
    method: Vec<String>,
    /// Training rounds [default: what the file says].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Fail unless every method's held-out loss fell in every group.
    #[arg(long)]
    check: bool,
}

/// Sets up, builds, runs every method and reports.
pub(crate) fn run(paths: &Paths, args: &ExperimentArgs) -> Result<()> {
    let spec = Spec::read(&args.file)?;
    let methods = spec.methods(&args.method)?;
    let members = spec.members(&args.data, &|model| model_path(paths, args, model))?;
    setup::run(paths, &SetupArgs::default())?;
    let model = model_path(paths, args, &spec.base);
    if args.model.is_none() {
        setup::run(paths, &SetupArgs::language_model())?;
    }
    let binaries = cargo::binaries(paths)?;
    let dir = demo::next_dir(&paths.root.join("experiments"))?;
    cargo::step(&format!("{}: {} clients in {}", spec.title, members.len(), paths.show(&dir)));
    let mut federation = Federation::start(binaries, &dir, (&spec.base, &model), &members)?;
    let mut outcomes = Vec::new();
    for method in methods {
        cargo::step(&format!("{}: federated fine-tuning", method.id));
        let start = Instant::now();
        let run = federation.create_run(paths, &method.id, &spec.run_file(method, args.rounds)?)?;
        if let Err(error) = federation.watch(&run) {
            eprintln!("\n{}", federation.log_tails());
            return Err(error);
        }
        let summary = federation.summary(&run)?;
        if summary.outcome != "completed" {
            bail!("run {run} did not complete: {}", summary.outcome);
        }
        federation.export(&run, &method.id)?;
        outcomes.push(Outcome::new(&method.id, federation.rounds(&run)?, start.elapsed().as_secs_f64()));
    }
    println!("{}", table::shown(&outcomes));
    let file = dir.join("outcomes.json");
    std::fs::write(&file, serde_json::to_string_pretty(&outcomes)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("\nAll records as JSON: {}", paths.show(&file));
    let misses: Vec<String> = outcomes.iter().flat_map(Outcome::misses).collect();
    misses.iter().for_each(|miss| println!("missed: {miss}"));
    if args.check && !misses.is_empty() {
        bail!("the held-out loss did not fall everywhere");
    }
    Ok(())
}

fn model_path(paths: &Paths, args: &ExperimentArgs, model: &str) -> PathBuf {
    let named = args.model.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    named.unwrap_or_else(|| setup::model_path(paths, model))
}
