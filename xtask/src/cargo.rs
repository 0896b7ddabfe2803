//! Calls of cargo: building, benches. One profile and one set of features serve them all,
//! so that nothing is built twice.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::paths::Paths;
use crate::process;
use crate::setup::{self, ChosenLibtorch, SetupArgs};

/// `cargo xtask bench [-- ARGS]`
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Passed on to criterion, for example a filter of names.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// cargo, in the workspace, with libtorch where setup put it.
pub(crate) fn cargo(paths: &Paths) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&paths.workspace);
    // `cargo run` tells this process about its own package. Build scripts that look at such
    // variables (ring's does) would run again, and all that depends on them be built again, at
    // every change between `cargo` and `cargo xtask`.
    for (name, _) in std::env::vars_os() {
        if is_about_this_package(&name.to_string_lossy()) {
            command.env_remove(&name);
        }
    }
    match setup::chosen_libtorch(paths) {
        // .cargo/config.toml names this folder. The same value in the environment would
        // count as a change of it, and cargo would compile the bindings anew at every
        // switch between `cargo xtask` and plain cargo.
        ChosenLibtorch::Ours(path) if path == paths.workspace.join(".rondo/libtorch") => {}
        ChosenLibtorch::Ours(path) | ChosenLibtorch::Named(path) => {
            command.env("LIBTORCH", path);
        }
        ChosenLibtorch::Pytorch => {
            command.env_remove("LIBTORCH");
        }
    }
    command
}

fn is_about_this_package(name: &str) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    let names = ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name)
}

/// Sets up and runs the benches.
pub(crate) fn bench(paths: &Paths, args: &BenchArgs) -> Result<()> {
    setup::run(paths, &SetupArgs::default())?;
    step("benches");
    // The dev profile: a release build of the bindings and of everything below would double the
    // build, and the dependencies that do the arithmetic are optimised in both.
    process::run(
        cargo(paths)
            .args(["bench", "--package", "rondo-benches", "--profile", "dev", "--locked", "--"])
            .args(&args.rest),
    )
}

/// The binaries that make up a federation.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    /// `rondo-coordinator`.
    pub(crate) coordinator: PathBuf,
    /// `rondo-client`.
    pub(crate) client: PathBuf,
    /// `rondo`, the operators' command line.
    pub(crate) rondo: PathBuf,
}

/// Builds the binaries, as the tests do, and says where they are.
pub(crate) fn binaries(paths: &Paths) -> Result<Binaries> {
    step("building the coordinator, the client and the command line");
    let start = Instant::now();
    // The whole workspace, for cargo picks features by what is asked
    // for: anything less builds dependencies again.
    process::run(cargo(paths).args(["build", "--workspace", "--bins", "--locked"]))?;
    println!("built in {:.0} s", start.elapsed().as_secs_f64());
    let target = target_dir(paths)?.join("debug");
    let binary = |name: &str| target.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    Ok(Binaries { coordinator: binary("rondo-coordinator"), client: binary("rondo-client"), rondo: binary("rondo") })
}

/// Builds the small programs that read files, and says in which folder they are.
pub(crate) fn examples(paths: &Paths) -> Result<PathBuf> {
    step("building the programs that read files");
    process::run(cargo(paths).args(["build", "--workspace", "--examples", "--locked"]))?;
    Ok(target_dir(paths)?.join("debug").join("examples"))
}

/// The folder that cargo builds into.
fn target_dir(paths: &Paths) -> Result<PathBuf> {
    let metadata = metadata(paths)?;
    let dir = metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?;
    Ok(PathBuf::from(dir))
}

/// What cargo says of the workspace's own packages.
pub(crate) fn metadata(paths: &Paths) -> Result<serde_json::Value> {
    process::json(cargo(paths).args(["metadata", "--no-deps", "--format-version", "1"]))
}

/// A heading on the terminal.
pub(crate) fn step(title: &str) {
    println!("\n== {title}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_says_about_this_package_is_not_handed_on() {
        assert!(is_about_this_package("CARGO_MANIFEST_DIR") && is_about_this_package("CARGO_PKG_NAME"));
        assert!(!is_about_this_package("CARGO_HOME") && !is_about_this_package("CARGO_TARGET_DIR"));
    }
}
