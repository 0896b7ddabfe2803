//! The walls between the crates: who may depend on whom, and that nothing but the client needs libtorch.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::cargo::{cargo, metadata, step};
use crate::paths::Paths;
use crate::process;

/// Which crates of the workspace a crate may use.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("rondo-proto", &[]),
    ("rondo-methods", &["rondo-proto"]),
    ("rondo-dp", &[]),
    ("rondo-rounds", &["rondo-proto", "rondo-methods", "rondo-dp"]),
    ("rondo-coordinator", &["rondo-proto", "rondo-methods", "rondo-dp", "rondo-rounds"]),
    ("rondo-client", &["rondo-proto", "rondo-methods", "rondo-dp"]),
    ("rondo", &["rondo-proto", "rondo-methods", "rondo-dp"]),
    ("rondo-benches", &["rondo-proto", "rondo-methods", "rondo-dp", "rondo-client"]),
    ("xtask", &[]),
];

/// What may not be in a build of the torch-free crates.
const LIBTORCH: [&str; 2] = ["torch-sys", "tch"];
/// What the round engine may not use directly: it does no I/O, reads no clock and draws no randomness.
const NOT_IN_ROUNDS: [&str; 8] = ["tokio", "tonic", "sled", "object_store", "getrandom", "rand", "tempfile", "time"];

/// Checks the walls and says so.
pub(crate) fn run(paths: &Paths) -> Result<()> {
    step("walls between the crates");
    let metadata = metadata(paths)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut breaches = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(known, _)| *known == name)
            .with_context(|| format!("{name}: say in xtask/src/walls.rs which crates it may use"))?;
        // Tests may reach across (the coordinator's drive real clients, say); what ships may not.
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for dependency in dependencies.filter(|dependency| dependency["kind"] != "dev") {
            let used = dependency["name"].as_str().unwrap_or_default();
            let is_own = MAY_USE.iter().any(|(known, _)| *known == used);
            if is_own && !allowed.contains(&used) {
                breaches.push(format!("{name} uses {used}, but may use {allowed:?} only"));
            }
            if name == "rondo-rounds" && NOT_IN_ROUNDS.contains(&used) {
                breaches.push(format!("{name} uses {used}, but does no I/O, reads no clock and draws no randomness"));
            }
        }
    }
    for package in default_members(&metadata)? {
        let tree = process::output(cargo(paths).args([
            "tree",
            "--package",
            &package,
            "--edges",
            "normal,build,dev",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--locked",
        ]))?;
        let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
        for found in LIBTORCH.iter().filter(|name| crates.contains(*name)) {
            breaches.push(format!("{package} is built without libtorch, but its tree holds {found}"));
        }
    }
    if !breaches.is_empty() {
        bail!("walls are broken:\n  {}", breaches.join("\n  "));
    }
    println!("{} crates keep to them; the default members build without libtorch", packages.len());
    Ok(())
}

/// Names of the packages that `cargo build` takes without further words.
fn default_members(metadata: &serde_json::Value) -> Result<Vec<String>> {
    let ids = metadata["workspace_default_members"].as_array().context("cargo metadata lists no default members")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let is_default = |package: &&serde_json::Value| ids.contains(&package["id"]);
    Ok(packages.iter().filter(is_default).filter_map(|package| package["name"].as_str()).map(str::to_owned).collect())
}
