//! What a ledger's file says, checked entry by entry and held against its head file.

use std::io::ErrorKind;
use std::path::Path;

use super::chain::Head;
use super::error::{LedgerError, io_error};
use super::head::{HeadFile, Recorded};
use super::state::{Entry, LedgerState};

/// All that a ledger's file says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents {
    /// What the entries add up to.
    pub state: LedgerState,
    /// The hash that pins them all.
    pub head: Head,
    /// The entries, oldest first, each with the hash that pins it and all before it.
    pub entries: Vec<(Entry, Head)>,
}

impl Contents {
    /// Reads a ledger that another process may be writing.
    pub(super) fn of(path: &Path) -> Result<Self, LedgerError> {
        let head_file = HeadFile::beside(path);
        // The head first: entries that come meanwhile put the ledger ahead of it, never behind.
        let recorded = head_file.read().map_err(io_error(&head_file.path))?;
        let bytes = std::fs::read(path).map_err(|source| match (source.kind(), recorded) {
            (ErrorKind::NotFound, Recorded::At(head)) if head.entries > 0 => missing(path, head),
            _ => io_error(path)(source),
        })?;
        let (contents, _) = Self::parse(&bytes)?;
        contents.check(path, &head_file, recorded)?;
        Ok(contents)
    }

    /// Reads whole lines; answers how many bytes they are.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, u64), LedgerError> {
        let text = whole_text(bytes)?;
        let mut contents = Self::default();
        for line in text.lines() {
            let (entry, next) = contents.head.read(line)?;
            let edited = |problem| LedgerError::Edited { line: next.entries, problem };
            contents.state.apply(&entry).map_err(edited)?;
            contents.head = next;
            contents.entries.push((entry, next));
        }
        Ok((contents, text.len() as u64))
    }

    /// Refuses a ledger that has lost entries since its head was written.
    pub(super) fn check(&self, path: &Path, head_file: &HeadFile, recorded: Recorded) -> Result<(), LedgerError> {
        let unpinned = |problem| LedgerError::NoHead {
            path: head_file.path.clone(),
            problem,
            entries: self.head.entries,
            line: self.head.line(),
        };
        let head = match recorded {
            Recorded::Missing if self.head.entries == 0 => return Ok(()),
            Recorded::Missing => return Err(unpinned("is not there")),
            Recorded::Damaged => return Err(unpinned("is damaged")),
            Recorded::At(head) => head,
        };
        if head.entries > self.head.entries {
            let found = self.head.entries;
            let counted = head.entries;
            return Err(LedgerError::Behind { path: path.to_owned(), found, counted, head: head.to_string() });
        }
        let pinned = usize::try_from(head.entries).ok().and_then(|count| count.checked_sub(1));
        let found = pinned.map_or_else(Head::default, |last| self.entries[last].1);
        if found != head {
            let problem = format!("it is not the entry that {} has", head_file.path.display());
            return Err(LedgerError::Edited { line: head.entries.max(1), problem });
        }
        Ok(())
    }
}

/// A ledger that was there, as its head file has it.
pub(super) fn missing(path: &Path, head: Head) -> LedgerError {
    LedgerError::Missing { path: path.to_owned(), counted: head.entries, head: head.to_string() }
}

/// The lines that were written to their end; what follows was cut off while it was written.
fn whole_text(bytes: &[u8]) -> Result<&str, LedgerError> {
    let length = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    std::str::from_utf8(&bytes[..length]).map_err(|error| {
        let before = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        LedgerError::Edited { line: before as u64 + 1, problem: error.to_string() }
    })
}
