//! `rondo-client ledger`: what this client has set aside and released with privacy.

mod account;
mod text;

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use account::LedgerReport;
use clap::Args;
use rondo_dp::{AccountingError, Contents, Ledger, LedgerError};

use crate::home::LEDGER;

/// Shows what was promised and released with privacy here: budgets by domain, costs by run
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client ledger --dir ~/rondo
  rondo-client ledger --dir ~/rondo --entries

Every entry is checked against the hash chain; the daemon may be running. An operator sees with `rondo privacy ledger RUN`
which heads this client reported: they are the heads of its entries. A coordinator's data directory holds a ledger of the
same form: --dir may name that too.")]
pub struct LedgerArgs {
    /// Folder of this client, as given to `join`
    #[arg(long)]
    pub dir: PathBuf,
    /// List all entries too, with their times and with the head after each
    #[arg(long)]
    pub entries: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
pub enum LedgerCommandError {
    /// The folder.
    #[error("{} is not there\nhint: name the folder that was given to `rondo-client join`", .dir.display())]
    NoFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder is nobody's.
    #[error(
        "{} is the folder of no client: it holds neither an identity nor a ledger\nhint: name the folder that was given to \
         `rondo-client join`",
        .dir.display()
    )]
    NoClient {
        /// The folder.
        dir: PathBuf,
    },
    /// The ledger was changed or cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// An entry has numbers out of range.
    #[error(transparent)]
    Accounting(#[from] AccountingError),
    /// The outcome cannot be printed.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

/// Reads the ledger and prints what it says.
///
/// # Errors
/// The folder is not there or no client's, the ledger cannot be read or was changed, an entry has numbers out of
/// range, or the outcome cannot be printed.
pub fn ledger(args: &LedgerArgs, out: &mut dyn Write) -> Result<(), LedgerCommandError> {
    let path = args.dir.join(LEDGER);
    let contents = match Ledger::read(&path) {
        Err(LedgerError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            if !args.dir.is_dir() {
                return Err(LedgerCommandError::NoFolder { dir: args.dir.clone() });
            }
            let is_a_home = ["identity.toml", "coordinator.toml"].iter().any(|file| args.dir.join(file).is_file());
            if !is_a_home {
                return Err(LedgerCommandError::NoClient { dir: args.dir.clone() });
            }
            Contents::default()
        }
        read => read?,
    };
    let account = LedgerReport::new(path, contents, args.entries)?;
    if args.json {
        let report = serde_json::to_string_pretty(&account).map_err(io::Error::from)?;
        return Ok(writeln!(out, "{report}")?);
    }
    Ok(text::print(&account, out)?)
}
