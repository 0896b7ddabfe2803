//! `rondo privacy`: what a schedule costs, what noise it needs,
//! and what a run has cost the data it trained on.

#[cfg(feature = "audit")]
mod audit;
mod epsilon;
mod figures;
mod ledger;
mod schedule;
mod show;
mod sigma;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::error::CliError;
#[cfg(feature = "audit")]
use audit::AuditArgs;
use epsilon::EpsilonArgs;
use sigma::SigmaArgs;

/// Commands about privacy.
#[derive(Debug, Subcommand)]
pub enum PrivacyCommand {
    /// Computes what epsilon a schedule of noised steps costs, by
    /// Renyi accounting and by privacy loss distributions
    #[command(
        after_help = "Example:\n  rondo privacy epsilon --noise-multiplier 1 --sampling-rate 0.01 --steps 1000 --delta 1e-5\n  rondo privacy epsilon --noise-multiplier 1.1 --examples 60000 --batch 256 --steps 14062 --delta 1e-5"
    )]
    Epsilon(EpsilonArgs),
    /// Computes the least noise with which a schedule stays within an epsilon
    #[command(
        after_help = "Example:\n  rondo privacy sigma --epsilon 3 --delta 1e-5 --sampling-rate 0.01 --steps 1000\n  rondo privacy sigma --epsilon 3 --delta 1e-5 --examples 6000 --batch 32 --steps 200 --figure pld"
    )]
    Sigma(SigmaArgs),
    /// Shows what a run promises and what it has cost every data owner, round by round
    #[command(after_help = "Example:\n  rondo privacy show sentiment")]
    Show(Id),
    /// Shows the ledger heads that data owners reported, to be held against their own ledgers
    ///
    /// A head is the digest of a client's ledger right after an update was entered; it pins
    /// every entry before. What a client's ledger holds for the same update shows
    /// `rondo-client ledger --dir DIR --entries` there.
    #[command(after_help = "Example:\n  rondo privacy ledger sentiment")]
    Ledger(Id),
    /// Measures and attacks the noise that runs use, beside broken mechanisms that must be caught
    #[cfg(feature = "audit")]
    Audit(AuditArgs),
}

/// A run's id.
#[derive(Debug, Args)]
pub struct Id {
    /// The run's id or name, from `rondo run list`, or the beginning of its id
    run: String,
}

/// Does a command about privacy.
///
/// # Errors
/// The schedule or the target makes no sense, the coordinator cannot be reached or refuses, or the
/// result cannot be printed. An audit also fails when it does not say what it should.
pub async fn run(command: PrivacyCommand, context: &mut Context) -> Result<(), CliError> {
    match command {
        PrivacyCommand::Epsilon(args) => epsilon::run(&args, context),
        PrivacyCommand::Sigma(args) => sigma::run(&args, context),
        PrivacyCommand::Show(id) => show::run(&id.run, context).await,
        #[cfg(feature = "audit")]
        PrivacyCommand::Audit(args) => audit::run(&args, context),
        PrivacyCommand::Ledger(id) => ledger::run(&id.run, context).await,
    }
}
