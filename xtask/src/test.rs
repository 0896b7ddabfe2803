//! `cargo xtask test`: everything that can be checked on this machine alone.

use anyhow::Result;
use clap::Args;

use crate::cargo::{cargo, step};
use crate::paths::Paths;
use crate::setup::{self, SetupArgs};
use crate::walls::{self, WallsArgs};
use crate::{process, processor};

/// `cargo xtask test [-- ARGS]`
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Then run the trainer's tests again as on older processors: with AVX2, and with the oldest
    /// instructions.
    #[arg(long)]
    instruction_sets: bool,
    /// Passed on to `cargo test --workspace`, for example `-p rondo-client` or `-- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Sets up, checks the walls and runs every test.
pub(crate) fn run(paths: &Paths, args: &TestArgs) -> Result<()> {
    setup::run(paths, &SetupArgs::default())?;
    walls::run(paths, &WallsArgs::default())?;
    step("tests of every crate");
    println!("{}", processor::described());
    process::run(cargo(paths).args(["test", "--workspace", "--locked"]).args(&args.rest))?;
    if args.instruction_sets {
        processor::test_instruction_sets(paths)?;
    }
    Ok(())
}
