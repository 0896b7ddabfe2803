//! The operator's command line. A command parses its arguments, asks the coordinator (or the files)
//! and hands one value to [`output`], which prints it for a person or as JSON.

pub mod blobs;
pub mod cli;
pub mod commands;
pub mod context;
pub mod error;
pub mod output;
mod render;
pub mod renewal;
pub mod run_names;
pub mod shapes;
pub mod start_adapter;
pub mod tensor_files;
pub mod text;
pub mod watch;
mod why_waiting;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;

/// Runs the program: exit code 0 = done, 1 = failed, 2 = wrong usage.
pub fn main() -> ExitCode {
    // clap prints help (0) and usage errors (2) itself.
    let cli = Cli::parse();
    let json = cli.global.json;
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start: {error}")))
        .and_then(|runtime| {
            let mut context = Context::new(cli.global.identity, Output::stdout(json));
            runtime.block_on(commands::run(cli.command, &mut context))
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error, json);
            error.exit_code()
        }
    }
}
