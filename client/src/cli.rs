//! The command line.

use clap::{Parser, Subcommand};

#[cfg(feature = "torch")]
use crate::commands::{evaluate::EvaluateArgs, train::TrainArgs};
use crate::commands::{join::JoinArgs, run::RunArgs};

/// Takes part in federated fine-tuning runs with data that never leaves this machine
#[derive(Debug, Parser)]
#[command(
    name = "rondo-client",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.
RONDO_LOG sets what is logged to standard error, for example RONDO_LOG=debug (default: info).

Example:
  rondo-client join https://coordinator.example:7461 --token 4f1c... --ca-fingerprint 9a0b... --dir ~/rondo
  rondo-client run --dir ~/rondo"
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enrols at a coordinator.
    Join(JoinArgs),
    /// Runs the daemon.
    Run(RunArgs),
    /// Trains an adapter on local data alone, without a coordinator.
    #[cfg(feature = "torch")]
    Train(Box<TrainArgs>),
    /// Evaluates an adapter on labelled texts, without a coordinator.
    #[cfg(feature = "torch")]
    Evaluate(Box<EvaluateArgs>),
}

impl Command {
    /// Whether logs are wanted as JSON.
    pub fn json_logs(&self) -> bool {
        matches!(self, Self::Run(args) if args.json)
    }
}
