//! `cargo xtask audit`: the long checks of privacy: the noise attacked from outside, and a client that is killed two hundred
//! times.

use std::process::Command;

use anyhow::Result;

use crate::cargo::{self, step};
use crate::paths::Paths;
use crate::process;
use crate::setup::{self, SetupArgs};

/// Noise multipliers that are audited.
const NOISE: [&str; 3] = ["0.5", "1", "2"];
/// How often the client is killed.
const KILLS: &str = "200";

/// Sets up, builds and audits.
pub(crate) fn run(paths: &Paths) -> Result<()> {
    setup::run(paths, &SetupArgs::default())?;
    let binaries = cargo::binaries(paths)?;
    for noise in NOISE {
        step(&format!("noise multiplier {noise}: claimed and audited epsilon"));
        let mut audit = Command::new(&binaries.rondo);
        process::run(audit.args(["privacy", "audit", "--noise-multiplier", noise]))?;
    }
    step(&format!("a client killed {KILLS} times: what left it is in its ledger"));
    let mut killed = cargo::cargo(paths);
    killed.args(["test", "--workspace", "--locked", "--test", "federation", "--", "whatever_left"]);
    process::run(killed.env("RONDO_KILLS", KILLS))
}
