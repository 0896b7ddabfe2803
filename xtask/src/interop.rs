//! `cargo xtask interop`: whether exported adapters give the same logits in Python's transformers
//! and peft as in `rondo-client evaluate`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cargo::{self, Binaries};
use crate::demo::{self, DemoArgs};
use crate::interop_case::{Case, TOLERANCE, compare};
use crate::interop_tiny;
use crate::paths::Paths;
use crate::process;
use crate::setup::{self, DOMAINS, SetupArgs};

/// Texts of each domain that are compared.
const TEXTS: usize = 16;
/// Says with which pinned packages the environment was made.
const STAMP: &str = "rondo-interop.txt";

/// `cargo xtask interop`
#[derive(Args)]
pub(crate) struct InteropArgs {
    /// An exported folder; repeatable [default: those of the newest
    /// demo, which is run first when there is none].
    #[arg(long, value_name = "DIR")]
    adapter: Vec<PathBuf>,
    /// The base model's folder [default: the demo's].
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

/// Makes the environment, then compares every adapter.
pub(crate) fn run(paths: &Paths, args: &InteropArgs) -> Result<()> {
    setup::run(paths, &SetupArgs::default())?;
    let python = environment(paths)?;
    let adapters = adapters(paths, args)?;
    let binaries = cargo::binaries(paths)?;
    let model = args.model.clone().unwrap_or_else(|| paths.demo_model());
    let work = paths.root.join("interop");
    std::fs::create_dir_all(&work)?;
    let texts = texts(paths, &work)?;
    let mut cases = Vec::new();
    for (index, adapter) in adapters.iter().enumerate() {
        cargo::step(&format!("interop: {}", paths.show(adapter)));
        let expected = work.join(format!("predictions-{index}.jsonl"));
        evaluate(&binaries, &model, adapter, &texts, &expected)?;
        let name = paths.show(adapter);
        cases.push(Case { name, model: model.clone(), adapter: adapter.clone(), expected, merged: None });
    }
    if args.adapter.is_empty() {
        cargo::step("interop: every method on tiny models");
        cases.extend(interop_tiny::cases(paths, &binaries, &work)?);
    }
    compare(paths, &python, &work, &cases)?;
    println!("\n{} adapters give the same logits in Python to {TOLERANCE}", cases.len());
    Ok(())
}

/// The folders to compare.
fn adapters(paths: &Paths, args: &InteropArgs) -> Result<Vec<PathBuf>> {
    if !args.adapter.is_empty() {
        return args.adapter.iter().map(|dir| Ok(std::path::absolute(dir)?)).collect();
    }
    if demo::latest_report(paths)?.is_none() {
        demo::run(paths, &DemoArgs::fast_all())?;
    }
    let report = demo::latest_report(paths)?.context("the demo left no report")?;
    Ok(report.methods.into_iter().map(|method| method.adapter).collect())
}

/// A few texts of every domain, the label beside them.
fn texts(paths: &Paths, work: &Path) -> Result<PathBuf> {
    let mut table = String::from("text\tlabel\n");
    for (domain, _) in DOMAINS {
        let path = paths.demo_data().join(domain).with_extension("tsv");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.lines().skip(1).take(TEXTS).for_each(|line| {
            table += line;
            table += "\n";
        });
    }
    let file = work.join("texts.tsv");
    std::fs::write(&file, table).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Logits by the client's own engine.
fn evaluate(binaries: &Binaries, model: &Path, adapter: &Path, texts: &Path, predictions: &Path) -> Result<()> {
    let mut command = Command::new(&binaries.client);
    command.arg("evaluate").arg("--model").arg(model).arg("--adapter").arg(adapter);
    command.arg("--data").arg(texts).arg("--predictions").arg(predictions).arg("--json");
    let report = process::output(&mut command)?;
    println!("rondo-client: {}", report.trim());
    Ok(())
}

/// A Python environment with pinned packages under `.rondo/venv`; returns its interpreter.
pub(crate) fn environment(paths: &Paths) -> Result<PathBuf> {
    let source = paths.workspace.join("xtask").join("interop");
    let read = |name: &str| {
        std::fs::read_to_string(source.join(name))
            .with_context(|| format!("cannot read {}", source.join(name).display()))
    };
    let recipe = [read("requirements-no-deps.txt")?, read("requirements.txt")?, read("stand_ins.py")?].concat();
    let venv = paths.venv();
    let python = venv.join("bin").join("python");
    let stamp = venv.join(STAMP);
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) {
        return Ok(python);
    }
    cargo::step("Python environment for the comparison (some 600 MB are fetched)");
    if venv.exists() {
        std::fs::remove_dir_all(&venv)?;
    }
    let outer = setup::python()?;
    if !process::succeeds(Command::new(outer).args(["-c", "import venv, ensurepip"])) {
        bail!("`{outer}` cannot make environments\nfix: install venv (Debian, Ubuntu: `apt-get install python3-venv`)");
    }
    process::run(Command::new(outer).args(["-m", "venv"]).arg(&venv))?;
    let pip = |args: &[&str], file: &str| {
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]);
        process::run(command.args(args).arg("--requirement").arg(source.join(file)))
    };
    pip(&[], "requirements.txt")?;
    // Where the wheel of this platform brings no GPU libraries,
    // torch and its dependencies are installed as usual.
    let bare: &[&str] = if cfg!(all(target_os = "linux", target_arch = "x86_64")) { &["--no-deps"] } else { &[] };
    let file = "requirements-no-deps.txt";
    if bare.is_empty() {
        let list: Vec<String> =
            read(file)?.lines().filter(|line| !line.starts_with(['#', 'n'])).map(str::to_owned).collect();
        let mut command = Command::new(&python);
        process::run(command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(list))?;
    } else {
        pip(bare, file)?;
        process::run(Command::new(&python).arg(source.join("stand_ins.py")))?;
    }
    if let Err(error) = process::output(Command::new(&python).args(["-c", "import torch, peft, transformers"])) {
        bail!("the Python environment does not work: {error:#}");
    }
    std::fs::write(&stamp, recipe)?;
    Ok(python)
}
