//! The commands: one file per group, each with its arguments,
//! whose doc comments are its help, and what it does.

pub mod adapter;
pub mod base;
pub mod client;
pub mod doctor;
pub mod join;
pub mod method;
pub mod operator;
pub mod privacy;
pub mod round;
pub mod run;
pub mod token;

use crate::cli::Command;
use crate::context::Context;
use crate::error::CliError;

/// Does what was asked for.
///
/// # Errors
/// The command fails. The error's kind gives the exit code.
pub async fn run(command: Command, context: &mut Context) -> Result<(), CliError> {
    match command {
        Command::Join(args) => join::run(args, context).await,
        Command::Base(command) => base::run(command, context).await,
        Command::Run(command) => run::run(command, context).await,
        Command::Round(command) => round::run(command, context).await,
        Command::Client(command) => client::run(command, context).await,
        Command::Token(command) => token::run(command, context).await,
        Command::Operator(command) => operator::run(command, context).await,
        Command::Adapter(command) => adapter::run(command, context).await,
        Command::Privacy(command) => privacy::run(command, context).await,
        Command::Method(command) => method::run(command, context),
        Command::Doctor(args) => doctor::run(args, context).await,
    }
}
