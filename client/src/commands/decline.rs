//! `rondo-client decline`: a person's no to a run.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::approve::{self, DecideError};

/// Says no to a run, also to one that this client takes part in
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client decline sentiment-1 --dir ~/rondo

What was sent before stays sent: `rondo-client history --run sentiment-1 --dir ~/rondo` lists it. `rondo-client approve` takes
the no back.")]
pub struct DeclineArgs {
    /// The run's id, or the beginning of it
    pub run: String,
    /// Folder of this client, as given to `join`
    #[arg(long)]
    pub dir: PathBuf,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Declines a run.
///
/// # Errors
/// As of [`approve::approve`].
pub fn decline(args: &DeclineArgs, out: &mut dyn Write) -> Result<(), DecideError> {
    let (terms, decision) = approve::decide(&args.dir, &args.run, false)?;
    approve::print(&terms, &decision, args.json, out)
}
