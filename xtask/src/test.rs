//! `cargo xtask test`: everything that can be checked on this machine alone.

use anyhow::Result;
use clap::Args;

use crate::cargo::{cargo, step};
use crate::paths::Paths;
use crate::process;
use crate::setup::{self, SetupArgs};
use crate::walls::{self, WallsArgs};

/// `cargo xtask test [-- ARGS]`
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Passed on to `cargo test --workspace`, for example `-p rondo-client` or `-- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Sets up, checks the walls and runs every test.
pub(crate) fn run(paths: &Paths, args: &TestArgs) -> Result<()> {
    setup::run(paths, &SetupArgs::default())?;
    walls::run(paths, &WallsArgs::default())?;
    step("tests of every crate");
    process::run(cargo(paths).args(["test", "--workspace", "--locked"]).args(&args.rest))
}
