//! A durable privacy ledger: what was promised and what was released, in a file that only grows.
//!
//! A release is entered and flushed before its first byte leaves, and never taken back: a crash right after it counts as
//! a release. What was reserved for a run and never released is free again once the run is closed. One process writes a
//! ledger at a time; whoever opens it sees to that.

mod books;
mod chain;
mod error;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

pub use books::{Books, CentralBooks, DomainBooks, Entry, RunBooks};
pub use chain::Head;
pub use error::LedgerError;

use crate::accountant::Event;
use crate::budget::Limit;
use crate::curve::Curve;
use crate::plan::ExamplePlan;

/// A ledger open for writing.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    /// Bytes of whole entries.
    length: u64,
    books: Books,
    head: Head,
    /// A failed write could not be undone.
    poisoned: bool,
}

impl Ledger {
    /// Opens the file, makes it where it is lacking, and checks every entry. An entry that was cut off while it was
    /// written was never answered for, and is cleared away.
    ///
    /// # Errors
    /// [`LedgerError::Edited`] when the file is not what was written; it is left as it is.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let io = io_error(path);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(&io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(&io)?;
        let (books, head, length) = read(&bytes)?;
        if length < bytes.len() as u64 {
            file.set_len(length).map_err(&io)?;
        }
        file.sync_all().map_err(&io)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(&io)?;
        }
        Ok(Self { path: path.to_owned(), file, length, books, head, poisoned: false })
    }

    /// Reads a ledger that another process may be writing.
    ///
    /// # Errors
    /// As of [`Ledger::open`]; a file that is not there.
    pub fn read(path: &Path) -> Result<(Books, Head), LedgerError> {
        let bytes = std::fs::read(path).map_err(io_error(path))?;
        let (books, head, _) = read(&bytes)?;
        Ok((books, head))
    }

    /// What the entries add up to.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// The hash that pins all entries so far.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Sets a run's whole plan aside in a domain, held against the budget that the owner declares for the domain. The
    /// same plan twice counts once.
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
        if let Some(books) = self.books.runs.get(run) {
            let same = books.plan == *plan && books.domain == domain;
            return if same { Ok(()) } else { Err(LedgerError::OtherPlan { run: run.to_owned() }) };
        }
        let whole = Curve::enforceable(&plan.whole()?);
        let budget = declared.map(|limit| self.books.budget(domain, limit, &whole));
        if let Some(budget) = budget {
            self.books.check_budget(domain, budget, &whole)?;
        }
        self.enter(Entry::Reserve { run: run.to_owned(), domain: domain.to_owned(), plan: *plan, budget, at_ms })
    }

    /// Whether one more round of a run may be released; asked before any work for it starts.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, run: &str) -> Result<(), LedgerError> {
        if self.poisoned {
            return Err(LedgerError::Poisoned);
        }
        self.books.check_spend(run).map(|_| ())
    }

    /// Enters the release of an update, by the digest of its bytes, and flushes. The same bytes again cost nothing.
    ///
    /// # Errors
    /// As of [`Ledger::check`]; the entry cannot be flushed. The update must not leave then.
    pub fn spend(&mut self, run: &str, round: u32, update: &str, at_ms: i64) -> Result<(), LedgerError> {
        if self.books.runs.get(run).is_some_and(|books| books.updates.contains_key(update)) {
            return Ok(());
        }
        let event = self.books.check_spend(run)?.plan.round()?;
        self.enter(Entry::Spend { run: run.to_owned(), round, update: update.to_owned(), event, at_ms })
    }

    /// Enters a coordinator's release of a round's noised sum, and flushes. Whether the run may release is asked before.
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
        let (run, domain) = (run.to_owned(), domain.to_owned());
        self.enter(Entry::Release { run, domain, round, attempt, event, at_ms })
    }

    /// Frees what a run has reserved and not released. A run that nothing is reserved for, or that is closed, is left.
    ///
    /// # Errors
    /// The entry cannot be flushed.
    pub fn close(&mut self, run: &str, at_ms: i64) -> Result<(), LedgerError> {
        match self.books.runs.get(run) {
            Some(books) if !books.closed => self.enter(Entry::Close { run: run.to_owned(), at_ms }),
            _ => Ok(()),
        }
    }

    fn enter(&mut self, entry: Entry) -> Result<(), LedgerError> {
        if self.poisoned {
            return Err(LedgerError::Poisoned);
        }
        let mut books = self.books.clone();
        books.apply(&entry).map_err(|problem| LedgerError::Unwritable { problem })?;
        let (line, head) = self.head.write(&entry)?;
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            let undone = self.file.set_len(self.length).and_then(|()| self.file.sync_data());
            self.poisoned = undone.is_err();
            return Err(LedgerError::Io { path: self.path.clone(), source });
        }
        self.length += line.len() as u64;
        self.books = books;
        self.head = head;
        Ok(())
    }

    /// The entries, read anew, oldest first, each with the hash that pins it and all before it.
    ///
    /// # Errors
    /// As of [`Ledger::read`].
    pub fn entries(path: &Path) -> Result<Vec<(Entry, Head)>, LedgerError> {
        let bytes = std::fs::read(path).map_err(io_error(path))?;
        let mut head = Head::default();
        let mut entries = Vec::new();
        for line in whole_lines(whole_text(&bytes)?) {
            let (entry, next) = head.read(line)?;
            head = next;
            entries.push((entry, next));
        }
        Ok(entries)
    }
}

fn read(bytes: &[u8]) -> Result<(Books, Head, u64), LedgerError> {
    let text = whole_text(bytes)?;
    let (mut books, mut head) = (Books::default(), Head::default());
    for line in whole_lines(text) {
        let (entry, next) = head.read(line)?;
        books.apply(&entry).map_err(|problem| LedgerError::Edited { line: next.entries, problem })?;
        head = next;
    }
    Ok((books, head, text.len() as u64))
}

/// The lines that were written to their end; what follows was cut off while it was written.
fn whole_text(bytes: &[u8]) -> Result<&str, LedgerError> {
    let length = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    std::str::from_utf8(&bytes[..length]).map_err(|error| {
        let before = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        LedgerError::Edited { line: before as u64 + 1, problem: error.to_string() }
    })
}

fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> LedgerError + use<> {
    let path = path.to_owned();
    move |source| LedgerError::Io { path: path.clone(), source }
}
