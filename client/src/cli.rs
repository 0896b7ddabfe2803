//! The command line.

use clap::{Parser, Subcommand};
use rondo_proto::wording::Wording;

#[cfg(feature = "hub")]
use crate::commands::fetch::FetchArgs;
use crate::commands::{
    approve::ApproveArgs, check::CheckArgs, declare::DeclareArgs, decline::DeclineArgs, history::HistoryArgs,
    join::JoinArgs, ledger::LedgerArgs, run::RunArgs,
};

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
    /// Says yes to a run that waits for a person.
    Approve(ApproveArgs),
    /// Checks whether this site could serve a run.
    Check(CheckArgs),
    /// Writes a declaration on a run.
    Declare(DeclareArgs),
    /// Says no to a run.
    Decline(DeclineArgs),
    /// Shows what was sent.
    History(HistoryArgs),
    /// Shows what was promised and released with privacy here.
    Ledger(LedgerArgs),
    /// Fetches a model from a Hugging Face hub.
    #[cfg(feature = "hub")]
    Fetch(FetchArgs),
    /// Without a coordinator.
    #[cfg(feature = "torch")]
    #[command(flatten)]
    Offline(crate::commands::offline::OfflineCommand),
}

impl Command {
    /// Whether logs are wanted as JSON.
    pub fn json_logs(&self) -> bool {
        matches!(self, Self::Run(args) if args.json)
    }

    /// How errors of this command name settings: offline commands have options in place of the keys
    /// of run files and of client.toml.
    pub fn wording(&self) -> Wording {
        match self {
            #[cfg(feature = "torch")]
            Self::Offline(_) => Wording::Options,
            _ => Wording::Keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_explains_itself_with_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("rondo-client"), "{} has no example", command.get_name());
        }
    }

    #[test]
    fn wrong_usage_has_an_exit_code_of_its_own() {
        let error = Cli::try_parse_from(["rondo-client", "run"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(Cli::try_parse_from(["rondo-client", "run", "--dir", "d", "--json"]).unwrap().command.json_logs());
    }

    #[cfg(feature = "torch")]
    #[test]
    fn held_out_rows_are_those_of_a_named_data_set() {
        let words = ["rondo-client", "evaluate", "--model", "m", "--adapter", "a", "--data", "reviews.tsv"];
        let parse = |more: &[&str]| Cli::try_parse_from(words.iter().chain(more));
        assert!(parse(&[]).is_ok(), "all rows need no name");
        let error = parse(&["--held-out", "0.1"]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::MissingRequiredArgument);
        assert!(error.to_string().contains("--dataset"), "{error}");
        assert!(parse(&["--held-out", "0.1", "--dataset", "reviews"]).is_ok());
    }
}
