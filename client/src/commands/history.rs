//! `rondo-client history`: what this client sent.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::history::{Contents, History, HistoryError};
use crate::home::HISTORY;

/// Shows what was sent, when, for which run and round, with bytes and digests
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client history --dir ~/rondo
  rondo-client history --dir ~/rondo --run sentiment-1 --json

Updates, evaluations, answers to invitations and reports of failures are listed; polls and heartbeats are not: docs/what-leaves.md
says what they hold. The daemon may be running. An operator sees the same digests of updates with `rondo round show`.")]
pub struct HistoryArgs {
    /// Folder of this client, as given to `join`
    #[arg(long)]
    pub dir: PathBuf,
    /// Only what was sent for this run
    #[arg(long)]
    pub run: Option<String>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
pub enum HistoryCommandError {
    /// The folder.
    #[error("{} is not there\nhint: name the folder that was given to `rondo-client join`", .dir.display())]
    NoFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// The record.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The outcome cannot be printed.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

/// Reads the record and prints it.
///
/// # Errors
/// The folder is not there, the record cannot be read, or the outcome cannot be printed.
pub fn history(args: &HistoryArgs, out: &mut dyn Write) -> Result<(), HistoryCommandError> {
    if !args.dir.is_dir() {
        return Err(HistoryCommandError::NoFolder { dir: args.dir.clone() });
    }
    let mut contents = History::read(&args.dir.join(HISTORY))?;
    if let Some(run) = &args.run {
        contents.sent.retain(|sent| sent.message.run == *run);
        contents.summaries.retain(|summary| summary.run == *run);
    }
    if args.json {
        let report = serde_json::to_string_pretty(&contents).map_err(io::Error::from)?;
        return Ok(writeln!(out, "{report}")?);
    }
    Ok(print(&contents, out)?)
}

fn print(contents: &Contents, out: &mut dyn Write) -> io::Result<()> {
    let Contents { since_ms, summaries, sent } = contents;
    match since_ms {
        None => return writeln!(out, "no history is kept here yet; the daemon begins one when it runs"),
        Some(since) => writeln!(out, "kept since {}; what was sent before is not listed", moment(*since))?,
    }
    for sum in summaries {
        let (first, last) = (moment(sum.first_ms), moment(sum.last_ms));
        writeln!(
            out,
            "{first} to {last}  {}  {} of kind {}, {} bytes",
            sum.run,
            sum.count,
            sum.what.as_str(),
            sum.bytes
        )?;
    }
    for sent in sent {
        let message = &sent.message;
        let at = moment(sent.sent_ms);
        let place = format!("{} round {} attempt {}", message.run, message.round, message.attempt);
        let what = message.what.as_str();
        let taken = if sent.taken_ms.is_some() { "taken" } else { "not confirmed" };
        writeln!(out, "{at}  {place}  {what:<10}  {:>10} bytes  {}  {taken}", message.bytes, message.digest)?;
    }
    let total =
        sent.iter().map(|sent| sent.message.bytes).sum::<u64>() + summaries.iter().map(|s| s.bytes).sum::<u64>();
    let count = sent.len() as u64 + summaries.iter().map(|summary| summary.count).sum::<u64>();
    writeln!(out, "{count} messages, {total} bytes")
}

/// A time, to the second, in UTC.
pub(super) fn moment(millis: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(millis.div_euclid(1000));
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{millis} ms since 1970"))
}
