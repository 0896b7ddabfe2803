//! The `rondo-client` program.

use std::io;

use clap::Parser;
use rondo_client::cli::{Cli, Command};
use rondo_client::commands;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    log(cli.command.json_logs())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match &cli.command {
        Command::Join(args) => runtime.block_on(commands::join::join(args, &mut io::stdout().lock()))?,
        Command::Run(args) => runtime.block_on(commands::run::run(args))?,
        #[cfg(feature = "torch")]
        Command::Train(args) => commands::train::train(args, &mut io::stdout().lock())?,
        #[cfg(feature = "torch")]
        Command::Evaluate(args) => commands::evaluate::evaluate(args, &mut io::stdout().lock())?,
    }
    // A trainer that is still in its last step does not keep the process.
    runtime.shutdown_background();
    Ok(())
}

fn log(as_json: bool) -> anyhow::Result<()> {
    let filter = match std::env::var("RONDO_LOG") {
        Ok(directives) => EnvFilter::try_new(directives)?,
        Err(_) => EnvFilter::new("info"),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    if as_json {
        log.json().init()
    } else {
        log.init()
    }
    Ok(())
}
