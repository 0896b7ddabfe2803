//! What people at this site said to runs: `decisions.json` in the client's folder. The commands
//! `approve` and `decline` write it, and a running daemon reads it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rondo_proto::clock::unix_millis;
use rondo_proto::files::{self, FileAccess};
use rondo_proto::{Digest, RunId};
use serde::{Deserialize, Serialize};

/// The file's name in a client's folder.
pub const DECISIONS: &str = "decisions.json";
/// Decisions that are remembered; the oldest is dropped first.
const REMEMBERED: usize = 500;

/// Yes or no to the terms of a run. Other terms under the same id are another question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The run.
    pub run: RunId,
    /// Digest of its terms ([`crate::terms::Terms::digest`]).
    pub terms: Digest,
    /// Whether the site takes part.
    pub approved: bool,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

/// Why decisions cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DecisionsError {
    /// The file cannot be read or written.
    #[error("decisions: {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is none of ours.
    #[error("decisions: {}: {problem}; move the file aside and decide again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// What was said to exactly these terms, if anything was.
///
/// # Errors
/// The file cannot be read or understood.
pub fn decision(path: &Path, run: &RunId, terms: &Digest) -> Result<Option<Decision>, DecisionsError> {
    Ok(read(path)?.into_iter().rfind(|decision| decision.run == *run && decision.terms == *terms))
}

fn read(path: &Path) -> Result<Vec<Decision>, DecisionsError> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|source| DecisionsError::Io { path: path.to_owned(), source })?,
    };
    serde_json::from_slice(&text)
        .map_err(|error| DecisionsError::Damaged { path: path.to_owned(), problem: error.to_string() })
}

/// Keeps a decision; it is on the disk when this returns. Two commands at a time take turns.
///
/// # Errors
/// The file cannot be read, understood or written.
pub fn decide(path: &Path, run: &RunId, terms: Digest, approved: bool) -> Result<Decision, DecisionsError> {
    let io = |source| DecisionsError::Io { path: path.to_owned(), source };
    let lock =
        File::options().create(true).truncate(false).write(true).open(path.with_extension("lock")).map_err(io)?;
    lock.lock().map_err(io)?;
    let mut all: Vec<Decision> = read(path)?;
    all.retain(|decision| decision.run != *run || decision.terms != terms);
    let decision = Decision { run: run.clone(), terms, approved, at_ms: unix_millis() };
    all.push(decision.clone());
    let surplus = all.len().saturating_sub(REMEMBERED);
    all.drain(..surplus);
    let text = serde_json::to_vec_pretty(&all).map_err(|error| io(error.into()))?;
    files::replace(path, &text, FileAccess::Owner).map_err(io)?;
    Ok(decision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_about_the_terms_it_was_made_on_and_may_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DECISIONS);
        let run = RunId::new("a").unwrap();
        let (first, second) = (Digest::of(b"1"), Digest::of(b"2"));
        let said = |terms: &Digest| decision(&path, &run, terms).unwrap().map(|decision| decision.approved);
        assert_eq!(said(&first), None);
        decide(&path, &run, first, true).unwrap();
        assert_eq!((said(&first), said(&second)), (Some(true), None));
        decide(&path, &run, second, false).unwrap();
        decide(&path, &run, first, false).unwrap();
        assert_eq!((said(&first), said(&second)), (Some(false), Some(false)));
        fs::write(&path, "[{").unwrap();
        let problem = decide(&path, &run, first, true).unwrap_err().to_string();
        assert!(problem.contains("move the file aside"), "{problem}");
    }
}
