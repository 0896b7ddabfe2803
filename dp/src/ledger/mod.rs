//! A durable privacy ledger: what was promised and what was released, in a file that only grows.
//!
//! A release is entered and flushed before its first byte leaves, and never taken back: a
//! crash right after it counts as a release. What was reserved for a run and never
//! released is free again once the run is closed. One process writes a ledger at a time;
//! whoever opens it sees to that. A small file beside it says how far it has come
//! (`head.rs`), so that one that has lost entries is refused.

mod chain;
mod contents;
mod error;
mod head;
mod state;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

pub use chain::Head;
pub use contents::Contents;
pub use error::LedgerError;
pub use state::{CentralAccount, DomainAccount, Entry, LedgerState, RunAccount};

use crate::budget::Limit;
use crate::curve::Curve;
use crate::event::Event;
use crate::example_plan::ExamplePlan;
use contents::missing;
use error::io_error;
use head::{HeadFile, Recorded, Unwritten, sync_folder_of};

/// A ledger open for writing.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    /// Bytes of whole entries.
    length: u64,
    state: LedgerState,
    head: Head,
    head_file: HeadFile,
    /// A failed write could not be undone.
    poisoned: bool,
}

impl Ledger {
    /// Opens the file, makes it where there never was one, and checks every entry. An entry that
    /// was cut off while it was written was never answered for, and is cleared away.
    ///
    /// # Errors
    /// [`LedgerError::Edited`] when the file is not what was written,
    /// [`LedgerError::Behind`] and [`LedgerError::Missing`] when entries were lost,
    /// [`LedgerError::NoHead`] when nothing shows whether any were; it is left as it is.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let io = io_error(path);
        let head_file = HeadFile::beside(path);
        let recorded = head_file.read().map_err(io_error(&head_file.path))?;
        let is_new = matches!(recorded, Recorded::Missing | Recorded::At(Head { entries: 0, .. }));
        let opened = OpenOptions::new().read(true).append(true).create(is_new).open(path);
        let mut file = opened.map_err(|source| match (source.kind(), recorded) {
            (ErrorKind::NotFound, Recorded::At(head)) => missing(path, head),
            _ => io(source),
        })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(&io)?;
        let (contents, length) = Contents::parse(&bytes)?;
        contents.check(path, &head_file, recorded)?;
        if length < bytes.len() as u64 {
            file.set_len(length).map_err(&io)?;
        }
        file.sync_all().map_err(&io)?;
        sync_folder_of(path).map_err(&io)?;
        let Contents { state, head, .. } = contents;
        if recorded != Recorded::At(head) {
            head_file.write(head).map_err(|unwritten| io_error(&head_file.path)(unwritten.source))?;
        }
        Ok(Self { path: path.to_owned(), file, length, state, head, head_file, poisoned: false })
    }

    /// Reads a ledger that another process may be writing.
    ///
    /// # Errors
    /// As of [`Ledger::open`]; a file that is not there.
    pub fn read(path: &Path) -> Result<Contents, LedgerError> {
        Contents::of(path)
    }

    /// What the entries add up to.
    pub fn state(&self) -> &LedgerState {
        &self.state
    }

    /// The hash that pins all entries so far.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Sets a run's whole plan aside in a domain, held against the budget that the owner declares
    /// for the domain. The same plan twice counts once.
    ///
    /// # Errors
    /// The plan does not fit what is left of the budget; the run was reserved with another plan.
    pub fn reserve(
        &mut self,
        run: &str,
        domain: &str,
        plan: &ExamplePlan,
        declared: Option<Limit>,
        at_ms: i64,
    ) -> Result<(), LedgerError> {
        if let Some(account) = self.state.runs.get(run) {
            let differences = account.differences(domain, plan);
            return match differences.is_empty() {
                true => Ok(()),
                false => Err(LedgerError::OtherPlan { run: run.to_owned(), differences: differences.join(", ") }),
            };
        }
        let whole = Curve::enforceable(&plan.whole()?);
        let budget = declared.map(|limit| self.state.budget(domain, limit, &whole));
        if let Some(budget) = budget {
            self.state.check_budget(domain, budget, &whole)?;
        }
        self.enter(Entry::Reserve { run: run.to_owned(), domain: domain.to_owned(), plan: *plan, budget, at_ms })
    }

    /// Whether an update of round `round` (0 = the warm-up) of a run may be
    /// released; asked before any work for it starts.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, run: &str, round: u32) -> Result<(), LedgerError> {
        if self.poisoned {
            return Err(LedgerError::Poisoned);
        }
        self.state.check_spend(run, round).map(|_| ())
    }

    /// Enters the release of an update, by the digest of its bytes,
    /// and flushes. The same bytes again cost nothing.
    ///
    /// # Errors
    /// As of [`Ledger::check`]; the entry cannot be flushed. The update must not leave then.
    pub fn spend(&mut self, run: &str, round: u32, update: &str, at_ms: i64) -> Result<(), LedgerError> {
        if self.state.runs.get(run).is_some_and(|account| account.updates.contains_key(update)) {
            return Ok(());
        }
        let event = self.state.check_spend(run, round)?.plan.release_of(round)?;
        self.enter(Entry::Spend { run: run.to_owned(), round, update: update.to_owned(), event, at_ms })
    }

    /// Enters a coordinator's release of a round's noised sum, and
    /// flushes. Whether the run may release is asked before.
    ///
    /// # Errors
    /// The entry cannot be flushed. No noise may be drawn then.
    pub fn release(
        &mut self,
        run: &str,
        domain: &str,
        (round, attempt): (u32, u32),
        event: Event,
        at_ms: i64,
    ) -> Result<(), LedgerError> {
        let run = run.to_owned();
        let domain = domain.to_owned();
        self.enter(Entry::Release { run, domain, round, attempt, event, at_ms })
    }

    /// Frees what a run has reserved and not released. A run that
    /// nothing is reserved for, or that is closed, is left.
    ///
    /// # Errors
    /// The entry cannot be flushed.
    pub fn close(&mut self, run: &str, at_ms: i64) -> Result<(), LedgerError> {
        match self.state.runs.get(run) {
            Some(account) if !account.closed => self.enter(Entry::Close { run: run.to_owned(), at_ms }),
            _ => Ok(()),
        }
    }

    fn enter(&mut self, entry: Entry) -> Result<(), LedgerError> {
        if self.poisoned {
            return Err(LedgerError::Poisoned);
        }
        let mut state = self.state.clone();
        state.apply(&entry).map_err(|problem| LedgerError::Unwritable { problem })?;
        let (line, head) = self.head.write(&entry)?;
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            return Err(self.undo(self.path.clone(), source));
        }
        if let Err(Unwritten { source, old_stands }) = self.head_file.write(head) {
            let path = self.head_file.path.clone();
            if old_stands {
                return Err(self.undo(path, source));
            }
            // The new head may stand. Without its entry the ledger would be behind it.
            self.poisoned = true;
            return Err(LedgerError::Io { path, source });
        }
        self.length += line.len() as u64;
        self.state = state;
        self.head = head;
        Ok(())
    }

    /// Cuts off an entry that nobody is answered for.
    fn undo(&mut self, path: PathBuf, source: io::Error) -> LedgerError {
        let undone = self.file.set_len(self.length).and_then(|()| self.file.sync_data());
        self.poisoned = undone.is_err();
        LedgerError::Io { path, source }
    }
}
