//! The `rondo-client` program.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use rondo_client::cli::{Cli, Command};
use rondo_client::{commands, logging};
#[cfg(feature = "torch")]
use rondo_trainer::environment::{Computation, restart_with_settings};

fn main() -> ExitCode {
    // Wrong usage ends here, with exit code 2.
    let cli = Cli::parse();
    // Libtorch reads its settings when it is loaded:
    // commands that compute restart the process with them.
    #[cfg(feature = "torch")]
    match &cli.command {
        Command::Run(_) => restart_with_settings(Computation::Training),
        Command::Offline(command) if command.trains() => restart_with_settings(Computation::Training),
        Command::Offline(_) => restart_with_settings(Computation::Inference),
        _ => {}
    }
    // Some messages are written long before they are
    // shown, so the wording holds for the whole command.
    cli.command.wording().scope(|| carry_out(&cli))
}

fn carry_out(cli: &Cli) -> ExitCode {
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = logging::with_causes(&error);
            // Nobody reads it when standard error is closed.
            let _ = writeln!(io::stderr(), "error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    logging::start(cli.command.json_logs())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match &cli.command {
        Command::Join(args) => runtime.block_on(commands::join::join(args, &mut io::stdout().lock()))?,
        Command::Run(args) => runtime.block_on(commands::run::run(args))?,
        Command::Approve(args) => commands::approve::approve(args, &mut io::stdout().lock())?,
        Command::Check(args) => commands::check::check(args, &mut io::stdout().lock())?,
        Command::Declare(args) => commands::declare::declare(args, &mut io::stdout().lock())?,
        Command::Decline(args) => commands::decline::decline(args, &mut io::stdout().lock())?,
        Command::History(args) => commands::history::history(args, &mut io::stdout().lock())?,
        Command::Ledger(args) => commands::ledger::ledger(args, &mut io::stdout().lock())?,
        #[cfg(feature = "hub")]
        Command::Fetch(args) => commands::fetch::fetch(args, &mut io::stdout().lock())?,
        #[cfg(feature = "torch")]
        Command::Offline(command) => command.run(&runtime)?,
    }
    // A trainer that is still in its last step does not keep the process.
    runtime.shutdown_background();
    Ok(())
}
