//! The coordinator's program.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use rondo_coordinator::cli::{Cli, run};
use rondo_coordinator::error_report::error_report;

fn main() -> ExitCode {
    // Wrong usage ends here, with exit code 2.
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads it when standard error is closed.
            let _ = writeln!(io::stderr(), "{}", error_report(&error));
            ExitCode::FAILURE
        }
    }
}
