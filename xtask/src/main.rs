//! `cargo xtask`: setup, tests, demo, benches and checks of the Rondo workspace.
//!
//! Everything it makes lies under `.rondo/` (git-ignored); everything it starts it also ends. It
//! depends on nothing else of the workspace, so it builds in seconds and can explain what is
//! missing before the rest is built.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A command for people at a terminal.

mod audit;
mod cargo;
mod cases;
mod compose;
mod demo;
mod examples;
mod experiment;
mod federation;
mod interop;
mod interop_case;
mod interop_tiny;
mod paths;
mod process;
mod processor;
mod records;
mod setup;
mod test;
mod walls;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::paths::Paths;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Setup, tests, demo, benches and checks of Rondo")]
struct Cli {
    /// Where libtorch, models, data and demos are kept [default: .rondo in the workspace].
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<std::path::PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch libtorch, the demo's model and the demo's data; a second call does nothing.
    Setup(setup::SetupArgs),
    /// Set up, then run every test of every crate.
    Test(test::TestArgs),
    /// Set up, then run a real federated fine-tuning on loopback and show what it did.
    Demo(demo::DemoArgs),
    /// Set up, then run a federation described in a file on data of yours, and show what it did.
    Experiment(experiment::ExperimentArgs),
    /// Set up, then run the criterion benches.
    Bench(cargo::BenchArgs),
    /// Attack the noise of private runs and kill a private client two hundred times; minutes.
    Audit,
    /// Compare exported adapters with Python's transformers and peft.
    Interop(interop::InteropArgs),
    /// Try inputs that people really have on the programs, and damaged files on the readers; what is
    /// right comes from Python's transformers, peft and pyarrow.
    Cases(cases::CasesArgs),
    /// Build the Docker images, run two rounds across the compose stack, and take it down.
    ComposeTest(compose::ComposeArgs),
    /// Check which crates may use which, what is linked, circles of
    /// imports among files, and the sizes of crates.
    Walls(walls::WallsArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    process::stop_children_on_interrupt();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let paths = Paths::find(cli.root)?;
    match cli.command {
        Command::Setup(args) => setup::run(&paths, &args),
        Command::Test(args) => test::run(&paths, &args),
        Command::Demo(args) => demo::run(&paths, &args),
        Command::Experiment(args) => experiment::run(&paths, &args),
        Command::Bench(args) => cargo::bench(&paths, &args),
        Command::Audit => audit::run(&paths),
        Command::Interop(args) => interop::run(&paths, &args),
        Command::Cases(args) => cases::run(&paths, &args),
        Command::ComposeTest(args) => compose::run(&paths, &args),
        Command::Walls(args) => walls::run(&paths, &args),
    }
}
