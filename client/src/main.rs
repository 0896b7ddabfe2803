//! The `rondo-client` program.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use rondo_client::cli::{Cli, Command};
use rondo_client::{commands, logging};

fn main() -> ExitCode {
    // Wrong usage ends here, with exit code 2.
    let cli = Cli::parse();
    #[cfg(feature = "torch")]
    if !matches!(cli.command, Command::Join(_) | Command::Ledger(_)) {
        let steps = matches!(cli.command, Command::Run(_) | Command::Train(_) | Command::Plan(_));
        rondo_client::trainer::environment::restart_with_settings(steps);
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let told = logging::with_causes(&error);
            #[cfg(feature = "torch")]
            let told = if cli.command.is_offline() { commands::wording::with_options(&told) } else { told };
            // Nobody is there to be told when standard error is closed.
            let _ = writeln!(io::stderr(), "error: {told}");
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
        Command::Ledger(args) => commands::ledger::ledger(args, &mut io::stdout().lock())?,
        #[cfg(feature = "hub")]
        Command::Fetch(args) => commands::fetch::fetch(args, &mut io::stdout().lock())?,
        #[cfg(feature = "torch")]
        Command::Train(args) => commands::train::train(args, &mut io::stdout().lock())?,
        #[cfg(feature = "torch")]
        Command::Evaluate(args) => commands::evaluate::evaluate(args, &mut io::stdout().lock())?,
        #[cfg(feature = "torch")]
        Command::Merge(args) => commands::merge::merge(args, &mut io::stdout().lock())?,
        #[cfg(feature = "torch")]
        Command::Generate(args) => commands::generate::generate(args, &mut io::stdout().lock())?,
        #[cfg(feature = "torch")]
        Command::Chat(args) => {
            let stop = std::sync::Arc::new(commands::chat::Stop::default());
            runtime.spawn(stop_on_ctrl_c(std::sync::Arc::clone(&stop)));
            commands::chat::chat(args, &mut io::stdin().lock(), &mut io::stdout().lock(), &stop)?;
        }
        #[cfg(feature = "torch")]
        Command::Plan(args) => commands::plan::plan(args, &mut io::stdout().lock())?,
    }
    // A trainer that is still in its last step does not keep the process.
    runtime.shutdown_background();
    Ok(())
}

/// Ctrl-C stops the answer in hand and not the program.
#[cfg(feature = "torch")]
async fn stop_on_ctrl_c(stop: std::sync::Arc<commands::chat::Stop>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}
