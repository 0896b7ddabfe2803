//! `rondo-client approve`: a person's yes to a run that waits for it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rondo_proto::run_file::RunFile;
use serde_json::{Value, json};

use crate::decisions::{self, DECISIONS, Decision, DecisionsError};
use crate::home::TERMS;
use crate::terms::{Standing, Terms, TermsFolder};

/// Says yes to a run that waits for a person; without RUN it lists those that wait
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client approve --dir ~/rondo
  rondo-client approve sentiment-1 --dir ~/rondo

With approve = \"ask\" under [policy] of client.toml no run is taken part in before a person has said so. The daemon may be
running: it takes a decision up at its next invitation, within seconds. A run whose terms change is asked for again.")]
pub struct ApproveArgs {
    /// The run's id, or the beginning of it
    pub run: Option<String>,
    /// Folder of this client, as given to `join`
    #[arg(long)]
    pub dir: PathBuf,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The folder.
    #[error("{} is not there\nhint: name the folder that was given to `rondo-client join`", .dir.display())]
    NoFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// No run, or several.
    #[error("{what} of the runs that this client was asked for begins with {run:?}; they are: {}", names(.known))]
    Run {
        /// "none", "more than one".
        what: &'static str,
        /// What was asked for.
        run: String,
        /// The runs there are.
        known: Vec<String>,
    },
    /// The record.
    #[error(transparent)]
    Decisions(#[from] DecisionsError),
    /// The outcome cannot be printed.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

fn names(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// Approves a run, or lists the runs that wait.
///
/// # Errors
/// The folder is not there, the run is not known or not the only one, the decision cannot be kept,
/// or the outcome cannot be printed.
pub fn approve(args: &ApproveArgs, out: &mut dyn Write) -> Result<(), DecideError> {
    match &args.run {
        Some(run) => {
            let (terms, decision) = decide(&args.dir, run, true)?;
            print(&terms, &decision, args.json, out)
        }
        None => list(&args.dir, args.json, out),
    }
}

/// Keeps a person's yes or no to the terms of a run as they are now.
pub(super) fn decide(dir: &Path, run: &str, approved: bool) -> Result<(Terms, Decision), DecideError> {
    let mut known = folder(dir)?.list();
    let names = known.iter().map(|terms| terms.run.to_string()).collect::<Vec<_>>();
    if known.iter().any(|terms| terms.run.as_str() == run) {
        known.retain(|terms| terms.run.as_str() == run);
    } else {
        known.retain(|terms| terms.run.as_str().starts_with(run));
    }
    let refuse = |what| DecideError::Run { what, run: run.to_owned(), known: names };
    match (known.pop(), known.is_empty()) {
        (None, _) => Err(refuse("none")),
        (Some(_), false) => Err(refuse("more than one")),
        (Some(terms), true) => {
            let decision = decisions::decide(&dir.join(DECISIONS), &terms.run, terms.digest(), approved)?;
            Ok((terms, decision))
        }
    }
}

fn folder(dir: &Path) -> Result<TermsFolder, DecideError> {
    if !dir.is_dir() {
        return Err(DecideError::NoFolder { dir: dir.to_owned() });
    }
    Ok(TermsFolder::new(dir.join(TERMS)))
}

/// Prints what was decided.
pub(super) fn print(terms: &Terms, decision: &Decision, as_json: bool, out: &mut dyn Write) -> Result<(), DecideError> {
    let run = &terms.run;
    if as_json {
        let report = json!({ "run": run, "approved": decision.approved, "terms": decision.terms });
        return Ok(writeln!(out, "{report}")?);
    }
    let what = match (decision.approved, terms.standing) {
        (true, Standing::Accepted) => format!("{run} is approved; this client takes part already"),
        (true, _) => format!("{run} is approved: the daemon says so at its next invitation"),
        (false, Standing::Accepted) => format!("{run} is declined: the daemon refuses its next assignment and leaves"),
        (false, _) => format!("{run} is declined: the daemon says so at its next invitation"),
    };
    Ok(writeln!(out, "{what}")?)
}

/// The runs that wait for a person, with what they ask for.
fn list(dir: &Path, as_json: bool, out: &mut dyn Write) -> Result<(), DecideError> {
    let file = dir.join(DECISIONS);
    let mut waiting = Vec::new();
    for terms in folder(dir)?.list() {
        let is_open = terms.standing == Standing::Undecided;
        if is_open && decisions::decision(&file, &terms.run, &terms.digest())?.is_none() {
            waiting.push(terms);
        }
    }
    if as_json {
        let report = json!({ "waiting": waiting.iter().map(facts).collect::<Vec<_>>() });
        return Ok(writeln!(out, "{report}")?);
    }
    if waiting.is_empty() {
        return Ok(writeln!(out, "no run waits for approval")?);
    }
    for terms in &waiting {
        writeln!(out, "{}", terms.run)?;
        for (name, value) in facts(terms).as_object().into_iter().flatten().filter(|(name, _)| *name != "run") {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            writeln!(out, "  {name:<16} {value}")?;
        }
    }
    let first = &waiting[0].run;
    Ok(writeln!(out, "\ndecide with: rondo-client approve {first}, or: rondo-client decline {first}")?)
}

/// What a run asks for, in a few words each.
fn facts(terms: &Terms) -> Value {
    let mut facts = json!({
        "run": terms.run,
        "terms": terms.digest(),
        "base": format!("{} ({})", terms.base, terms.base_digest),
        "dataset": terms.dataset,
        "train_rows": terms.train_rows,
        "held_out_rows": terms.held_out_rows,
        "rank": terms.rank,
    });
    // It parsed when the run was asked for.
    if let Ok(run) = RunFile::parse(&terms.run_file) {
        facts["name"] = json!(run.name);
        facts["task"] = json!(run.task.kind.name());
        facts["method"] = json!(run.method.id);
        facts["rounds"] = json!(run.rounds.count);
        facts["steps_a_round"] = json!(run.train.local_steps);
        facts["batch"] = json!(run.train.batch);
        facts["privacy"] = match &run.privacy {
            None => json!("none"),
            Some(asked) => json!(format!("unit {}, epsilon {}, delta {:e}", asked.unit, asked.epsilon, asked.delta)),
        };
    }
    facts
}
