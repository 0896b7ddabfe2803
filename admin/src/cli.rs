//! The command tree. What a command takes and says stands in its own file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::adapter::AdapterCommand;
use crate::commands::base::BaseCommand;
use crate::commands::client::ClientCommand;
use crate::commands::doctor::DoctorArgs;
use crate::commands::join::JoinArgs;
use crate::commands::method::MethodCommand;
use crate::commands::operator::OperatorCommand;
use crate::commands::privacy::PrivacyCommand;
use crate::commands::round::RoundCommand;
use crate::commands::run::RunCommand;
use crate::commands::token::TokenCommand;

/// Steers a Rondo coordinator: base models, runs, rounds, clients, tokens and adapters.
#[derive(Debug, Parser)]
#[command(
    name = "rondo",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.\n\nExample:\n  rondo join https://fl.example.org:7461 --token TOKEN --ca-fingerprint SHA256\n  rondo base add minilm-l6 --from models/minilm-l6\n  rondo run create run.toml\n  rondo run watch sentiment"
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Folder of the operator's identity [default: ~/.config/rondo]
    #[arg(long, global = true, env = "RONDO_IDENTITY", value_name = "DIR")]
    pub identity: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// The command groups.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enrols this operator with a one-time token
    Join(JoinArgs),
    /// Registers base models and shows them
    #[command(subcommand, after_help = "Example:\n  rondo base list")]
    Base(BaseCommand),
    /// Creates, shows, watches and steers runs
    #[command(subcommand, after_help = "Example:\n  rondo run watch sentiment")]
    Run(RunCommand),
    /// Shows the rounds of a run
    #[command(subcommand, after_help = "Example:\n  rondo round list sentiment")]
    Round(RoundCommand),
    /// Shows, approves, drains and revokes clients
    #[command(subcommand, after_help = "Example:\n  rondo client list")]
    Client(ClientCommand),
    /// Makes and revokes join tokens for clients
    #[command(subcommand, after_help = "Example:\n  rondo token create --name hospital-a")]
    Token(TokenCommand),
    /// Shows, adds and revokes operators
    #[command(subcommand, after_help = "Example:\n  rondo operator list")]
    Operator(OperatorCommand),
    /// Exports, inspects, compares and aggregates adapters
    #[command(subcommand, after_help = "Example:\n  rondo adapter export sentiment --format peft --out adapter")]
    Adapter(AdapterCommand),
    /// Counts the cost of privacy: of a schedule, of a run, and as ledgers have it
    #[command(
        subcommand,
        after_help = "Example:\n  rondo privacy epsilon --noise-multiplier 1 --sampling-rate 0.01 --steps 1000 --delta 1e-5"
    )]
    Privacy(PrivacyCommand),
    /// Shows the federated methods and their options
    #[command(subcommand, after_help = "Example:\n  rondo method list")]
    Method(MethodCommand),
    /// Checks identity, reachability, TLS, clock and versions
    Doctor(DoctorArgs),
}
