//! `rondo-client declare`: what one run took from this site, for a data-protection officer.

mod text;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use rondo_dp::{Ledger, LedgerError};
use rondo_proto::RunId;
use rondo_proto::files::{self, FileAccess};
use rondo_proto::ids::InvalidId;
use rondo_proto::run_file::{RunFile, RunFileError};
use rondo_wire::identity::{self, IdentityError};
use serde_json::json;

use crate::config::{Config, ConfigError};
use crate::history::{History, HistoryError};
use crate::home::{HISTORY, LEDGER, TERMS};
use crate::terms::TermsFolder;

/// Writes a one-page declaration on a run, from this client's own records
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client declare --dir ~/rondo --run sentiment-1 --out sentiment-1.md

The page says in plain words what the run was, which rows it used, what was sent and when, who can read it and how long it is
kept. It is made from the folder alone; the coordinator is not asked.")]
pub struct DeclareArgs {
    /// Folder of this client, as given to `join`
    #[arg(long)]
    pub dir: PathBuf,
    /// The configuration [default: client.toml in that folder]
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// The run's id
    #[arg(long)]
    pub run: String,
    /// The file to write, Markdown
    #[arg(long)]
    pub out: PathBuf,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why there is no declaration.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// The run's id.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The folder knows nothing of the run.
    #[error(
        "{} has no terms of run {run:?}, so that nothing can be declared; it has those of: {known}. Terms are kept since this \
         version of rondo-client, when a run invites the client or gives it work", .dir.display()
    )]
    NoTerms {
        /// The folder.
        dir: PathBuf,
        /// The run.
        run: String,
        /// The runs there are.
        known: String,
    },
    /// The run file that was kept.
    #[error(transparent)]
    RunFile(#[from] RunFileError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// client.toml.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The record of what was sent.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The privacy ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The file cannot be written.
    #[error("{}: {source}", .path.display())]
    Out {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The outcome cannot be printed.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

/// Writes the declaration.
///
/// # Errors
/// The folder has no terms of the run, one of its records cannot be read, or the file cannot be
/// written.
pub fn declare(args: &DeclareArgs, out: &mut dyn Write) -> Result<(), DeclareError> {
    let DeclareArgs { dir, run, .. } = args;
    let id = RunId::new(run.as_str())?;
    let folder = TermsFolder::new(dir.join(TERMS));
    let terms = folder.get(&id).ok_or_else(|| {
        let known: Vec<String> = folder.list().into_iter().map(|terms| terms.run.to_string()).collect();
        let known = if known.is_empty() { "no run".to_owned() } else { known.join(", ") };
        DeclareError::NoTerms { dir: dir.clone(), run: run.clone(), known }
    })?;
    let ledger_file = dir.join(LEDGER);
    let ledger = if ledger_file.exists() { Some(Ledger::read(&ledger_file)?) } else { None };
    let facts = text::Facts {
        run: RunFile::parse(&terms.run_file)?,
        identity: identity::load(dir)?,
        config: Config::read(&args.config.clone().unwrap_or_else(|| dir.join("client.toml")))?,
        history: History::read(&dir.join(HISTORY))?,
        account: ledger.and_then(|ledger| ledger.state.runs.get(run).cloned()),
        terms,
    };
    let page = text::page(&facts)?;
    files::replace(&args.out, page.as_bytes(), FileAccess::Owner)
        .map_err(|source| DeclareError::Out { path: args.out.clone(), source })?;
    if args.json {
        let report = json!({ "run": run, "out": args.out, "bytes": page.len() });
        return Ok(writeln!(out, "{report}")?);
    }
    Ok(writeln!(out, "declaration on {run} written to {}", args.out.display())?)
}
