//! `rondo adapter`: trained adapters as files.

mod aggregate;
mod diff;
mod evidence;
mod export;
mod inspect;

use clap::Subcommand;

use crate::context::Context;
use crate::error::CliError;

/// Commands about adapters.
#[derive(Debug, Subcommand)]
pub enum AdapterCommand {
    /// Writes a run's adapter as a folder that Python's PeftModel.from_pretrained loads
    ///
    /// The folder holds adapter_config.json, adapter_model.safetensors, the classifier head beside
    /// it (rondo_head.safetensors; PEFT knows no pooling) and a README that shows how to use them.
    /// Methods that stack are written as one adapter of the stacked rank.
    Export(export::ExportArgs),
    /// Shows what an adapter folder or a tensor file holds
    Inspect(inspect::InspectArgs),
    /// Compares two adapters, tensor by tensor
    ///
    /// Shown is ||A - B|| / ||B||. Of two PEFT folders the changes of the weights are
    /// compared too, since different factors may stand for the same change; where
    /// they can be compared, they decide --tolerance.
    Diff(diff::DiffArgs),
    /// Aggregates update files offline with any method's law
    #[command(long_about = aggregate::about())]
    Aggregate(aggregate::AggregateArgs),
}

/// Does a command about adapters.
///
/// # Errors
/// An argument makes no sense, a file cannot be used, the coordinator refuses, or the result cannot
/// be printed. `diff` also fails when the adapters differ by more than the tolerance.
pub async fn run(command: AdapterCommand, context: &mut Context) -> Result<(), CliError> {
    match command {
        AdapterCommand::Export(args) => export::run(args, context).await,
        AdapterCommand::Inspect(args) => inspect::run(args, context),
        AdapterCommand::Diff(args) => diff::run(args, context),
        AdapterCommand::Aggregate(args) => aggregate::run(args, context),
    }
}
