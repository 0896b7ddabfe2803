//! What this client answered to which run, kept over restarts. Work is done
//! only for the very run file that was answered.

use std::fs;
use std::io;
use std::path::PathBuf;

use rondo_proto::files::{self, FileAccess};
use rondo_proto::{Digest, RunId};
use serde::{Deserialize, Serialize};

/// Runs that are remembered. The answer that is unchanged for longest is dropped first.
const REMEMBERED: usize = 200;

/// An answer and what it was an answer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The run.
    pub run: RunId,
    /// Digest of the run file's text.
    pub run_file: Digest,
    /// Digest of the base model, as the coordinator spelt it.
    pub base: String,
    /// Digest of the adapter that the run starts from, likewise; empty without one.
    #[serde(default)]
    pub initial: String,
    /// The rank offered; of no meaning when declined.
    pub rank: u32,
    /// Why the run was declined; `None` = accepted.
    pub declined: Option<String>,
}

/// All answers, the longest unchanged first.
#[derive(Debug)]
pub struct Answers {
    path: PathBuf,
    all: Vec<Answer>,
}

impl Answers {
    /// Reads the record. Without one, or with a damaged one, every run is decided anew.
    pub fn open(path: PathBuf) -> Self {
        let all = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { path, all }
    }

    /// The answer given to a run.
    pub fn get(&self, run: &RunId) -> Option<&Answer> {
        self.all.iter().find(|answer| answer.run == *run)
    }

    /// Keeps an answer; it is on the disk when this returns.
    ///
    /// # Errors
    /// The file cannot be written. The answers in memory stay as they were then.
    pub fn put(&mut self, answer: Answer) -> io::Result<()> {
        if self.get(&answer.run) == Some(&answer) {
            return Ok(());
        }
        let mut all: Vec<Answer> = self.all.iter().filter(|other| other.run != answer.run).cloned().collect();
        all.push(answer);
        let surplus = all.len().saturating_sub(REMEMBERED);
        all.drain(..surplus);
        files::replace(&self.path, &serde_json::to_vec_pretty(&all)?, FileAccess::Owner)?;
        self.all = all;
        Ok(())
    }
}
