//! The coordinator's program.

use clap::Parser;
use rondo_coordinator::cli::{Cli, run};

fn main() -> anyhow::Result<()> {
    Ok(run(Cli::parse())?)
}
