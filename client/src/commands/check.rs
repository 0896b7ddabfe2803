//! `rondo-client check`: whether this site could serve a run, without one.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use crate::site_check::{self, SiteReport};

/// Looks at models, data sets, policy, ledger, disk, memory and certificate, without a run
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client check --dir ~/rondo
  rondo-client check --dir ~/rondo --config /etc/rondo/client.toml --json

The coordinator is not asked. The exit code is 1 when something would stop this site from serving a run. Large data sets are
read as a whole, and models that changed are hashed anew.")]
pub struct CheckArgs {
    /// Folder of this client, as given to `join`
    #[arg(long)]
    pub dir: PathBuf,
    /// The configuration [default: client.toml in that folder]
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why the check did not pass.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Something would stop the site from serving.
    #[error("{count} of the things above would stop this site from serving a run")]
    Problems {
        /// How many.
        count: usize,
    },
    /// The outcome cannot be printed.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

/// Checks the site and prints what was found.
///
/// # Errors
/// Something would stop the site from serving, or the outcome cannot be printed.
pub fn check(args: &CheckArgs, out: &mut dyn Write) -> Result<(), CheckError> {
    let config = args.config.clone().unwrap_or_else(|| args.dir.join("client.toml"));
    let report = site_check::check(&args.dir, &config);
    if args.json {
        let text = serde_json::to_string_pretty(&report).map_err(io::Error::from)?;
        writeln!(out, "{text}")?;
    } else {
        print(&report, out)?;
    }
    match report.problems.len() {
        0 => Ok(()),
        count => Err(CheckError::Problems { count }),
    }
}

fn print(report: &SiteReport, out: &mut dyn Write) -> io::Result<()> {
    if let Some(identity) = &report.identity {
        writeln!(out, "client {} at {}", identity.name, identity.coordinator)?;
        writeln!(out, "certificate valid until {}", super::history::moment(identity.certificate_ends_ms))?;
    }
    for model in &report.models {
        writeln!(out, "model {}: {}, {}", model.path.display(), model.architecture, model.digest)?;
    }
    for set in &report.datasets {
        for task in &set.serves {
            let rows = format!("{} rows to train on, {} held out, {} skipped", task.train, task.held_out, task.skipped);
            writeln!(out, "data set {} for {}: {rows}", set.name, task.task)?;
            for (label, count) in &task.labels {
                writeln!(out, "  label {label:?}: {count}")?;
            }
        }
    }
    for room in &report.ledger {
        let (spent, aside, limit) = (room.spent, room.with_set_aside, room.epsilon);
        let domain = &room.domain;
        writeln!(out, "ledger {domain}: epsilon {spent:.4} spent, {aside:.4} with what is set aside, of {limit}")?;
    }
    let size = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    writeln!(out, "disk: {} free; memory: {} available", size(report.disk_free), size(report.memory))?;
    if let Some(policy) = &report.policy {
        let policy = toml::to_string(policy).unwrap_or_default();
        writeln!(out, "policy in force:")?;
        policy.lines().try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    report.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))?;
    report.problems.iter().try_for_each(|problem| writeln!(out, "problem: {problem}"))?;
    match report.problems.is_empty() {
        true => writeln!(out, "this site can serve runs that fit what is listed above"),
        false => Ok(()),
    }
}
