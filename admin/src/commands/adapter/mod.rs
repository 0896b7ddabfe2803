//! `rondo adapter`: trained adapters as files.

mod aggregate;
mod diff;
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
    /// The folder holds adapter_config.json, adapter_model.safetensors, the classifier head beside it
    /// (rondo_head.safetensors; PEFT knows no pooling) and a README that shows how to use them. Methods that stack are
    /// written as one adapter of the stacked rank.
    Export(export::ExportArgs),
    /// Shows what an adapter folder or a tensor file holds
    Inspect(inspect::InspectArgs),
    /// Compares two adapters, tensor by tensor
    ///
    /// Shown is ||A - B|| / ||B||. Of two PEFT folders the changes of the weights are compared too, since different
    /// factors may stand for the same change; where they can be compared, they decide --tolerance.
    Diff(diff::DiffArgs),
    /// Aggregates update files offline with any method's law
    ///
    /// Tensors are named <target>.<part>, with the parts of the method's layout, for example
    /// encoder.layer.0.attention.self.query.lora_B. `rondo method show ID` lists parts and shapes: fedit and flora take
    /// lora_A [r, in] and lora_B [out, r], ffa-lora takes lora_B, fed-sb takes lora_R [r, r]. head.weight and head.bias
    /// are averaged.
    ///
    /// The aggregation error is told when all factors of the change are at hand: the frozen ones (lora_A of ffa-lora,
    /// lora_A and lora_B of fed-sb) may stand in the update files or in one file named with --frozen.
    Aggregate(aggregate::AggregateArgs),
}

/// Does a command about adapters.
pub async fn run(command: AdapterCommand, context: &mut Context) -> Result<(), CliError> {
    match command {
        AdapterCommand::Export(args) => export::run(args, context).await,
        AdapterCommand::Inspect(args) => inspect::run(args, context),
        AdapterCommand::Diff(args) => diff::run(args, context),
        AdapterCommand::Aggregate(args) => aggregate::run(args, context),
    }
}
