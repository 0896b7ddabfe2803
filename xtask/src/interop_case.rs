//! An adapter to compare with Python, and the comparison itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cargo;
use crate::paths::Paths;
use crate::process;

/// Largest difference of a logit.
pub(crate) const TOLERANCE: &str = "1e-4";

/// One adapter to compare, as check.py reads it.
#[derive(Serialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The base model's folder.
    pub(crate) model: PathBuf,
    /// The PEFT folder.
    pub(crate) adapter: PathBuf,
    /// What `rondo-client evaluate` wrote.
    pub(crate) expected: PathBuf,
    /// The folder of full weights, if it was made.
    pub(crate) merged: Option<PathBuf>,
}

/// Compares every case in Python. The first that differs fails.
pub(crate) fn compare(paths: &Paths, python: &Path, work: &Path, cases: &[Case]) -> Result<()> {
    cargo::step("the same logits in Python");
    let list = work.join("cases.json");
    std::fs::write(&list, serde_json::to_vec(cases)?).with_context(|| format!("cannot write {}", list.display()))?;
    process::run(
        Command::new(python)
            .args(["-W", "ignore"])
            .arg(paths.workspace.join("xtask/interop/check.py"))
            .arg(&list)
            .arg(TOLERANCE)
            .env("HF_HUB_OFFLINE", "1")
            .env("TRANSFORMERS_VERBOSITY", "error"),
    )
}
