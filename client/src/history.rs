//! The record of what was sent: one line per message that holds something of this client, written
//! and flushed before its first byte leaves.
//!
//! `history.jsonl` in the client's folder is only ever appended to. When it has grown long, the
//! lines of old messages become one summary for each run and kind. Polls and heartbeats are not
//! listed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rondo_proto::clock::unix_millis;
use rondo_proto::files::{self, FileAccess};
use serde::{Deserialize, Serialize};

/// Lines after which a file is shortened when it is opened.
const MOST_LINES: usize = 20_000;
/// Messages that are then still listed one by one.
const LISTED: usize = 5_000;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The answer to an invitation.
    Answer,
    /// An update, or the statistic of a warm-up: tensors with the facts beside them.
    Update,
    /// The result of an evaluation.
    Evaluation,
    /// Why an assignment was not done.
    Failure,
}

impl What {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Update => "update",
            Self::Evaluation => "evaluation",
            Self::Failure => "failure",
        }
    }
}

/// One message. The same again is not listed again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Message {
    /// The run.
    pub run: String,
    /// The round; 0 is the warm-up, and of an answer.
    pub round: u32,
    /// The attempt at the round; 0 of an answer and of an evaluation.
    pub attempt: u32,
    /// What it is.
    pub what: What,
    /// Bytes: of an update's file, else of the message.
    pub bytes: u64,
    /// BLAKE3 of the same bytes.
    pub digest: String,
}

/// A message and its times, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// What was sent.
    #[serde(flatten)]
    pub message: Message,
    /// When its first byte was about to leave.
    pub sent_ms: i64,
    /// When the coordinator had said that it holds it; absent when it has not: some of the message,
    /// or all of it, may have left all the same.
    pub taken_ms: Option<i64>,
}

/// Old messages of one run and kind, in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The run.
    pub run: String,
    /// What they were.
    pub what: What,
    /// How many.
    pub count: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// When the first was sent.
    pub first_ms: i64,
    /// When the last was sent.
    pub last_ms: i64,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
enum Line {
    /// The first line.
    Since {
        at_ms: i64,
    },
    Summary(Summary),
    /// A message is about to leave.
    Sending {
        at_ms: i64,
        #[serde(flatten)]
        message: Message,
    },
    /// The coordinator holds it.
    Taken {
        at_ms: i64,
        #[serde(flatten)]
        message: Message,
    },
}

/// A whole history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Contents {
    /// Since when it is kept; absent where there is none yet.
    pub since_ms: Option<i64>,
    /// Messages that are no longer listed one by one.
    pub summaries: Vec<Summary>,
    /// All others, oldest first.
    pub sent: Vec<Sent>,
}

/// Why the history cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be read or written.
    #[error("history: {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line makes no sense.
    #[error(
        "history: {}, line {line}: {problem}; the file was changed by another program: restore it, or move it aside and a new \
         one begins", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

/// The history of a running daemon, which alone writes it (see [`crate::home::Home`]).
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    sending: BTreeSet<Message>,
    taken: BTreeSet<Message>,
}

impl History {
    /// Opens the file, or begins one. A line that a crash cut short is taken out.
    ///
    /// # Errors
    /// The file cannot be read, written or understood.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let io = |source| HistoryError::Io { path: path.to_owned(), source };
        let text = read_text(path)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let contents = parse(path, &text[..whole])?;
        let is_long = text.lines().count() > MOST_LINES;
        let contents = if is_long { shortened(contents, LISTED) } else { contents };
        if is_long || contents.since_ms.is_none() || whole < text.len() {
            let lines = lines_of(&contents).map_err(|error| io(error.into()))?;
            files::replace(path, lines.as_bytes(), FileAccess::Owner).map_err(io)?;
        }
        let file = File::options().append(true).open(path).map_err(io)?;
        let taken = contents.sent.iter().filter(|sent| sent.taken_ms.is_some()).map(|sent| sent.message.clone());
        let taken = taken.collect();
        let sending = contents.sent.into_iter().map(|sent| sent.message).collect();
        Ok(Self { path: path.to_owned(), open: Mutex::new(Open { file, sending, taken }) })
    }

    /// Reads a history; the daemon may be running. Empty where there is none.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn read(path: &Path) -> Result<Contents, HistoryError> {
        let text = read_text(path)?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        parse(path, &text[..whole])
    }

    fn open_file(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a message is about to leave; it is on the disk when this returns.
    ///
    /// # Errors
    /// The line cannot be written: the message must stay.
    pub fn sending(&self, message: &Message) -> Result<(), HistoryError> {
        let mut open = self.open_file();
        if !open.sending.contains(message) {
            self.append(&mut open.file, &Line::Sending { at_ms: unix_millis(), message: message.clone() })?;
            open.sending.insert(message.clone());
        }
        Ok(())
    }

    /// Notes that the coordinator holds a message; it is on the disk when this returns.
    ///
    /// # Errors
    /// The line cannot be written.
    pub fn taken(&self, message: &Message) -> Result<(), HistoryError> {
        let mut open = self.open_file();
        if open.sending.contains(message) && !open.taken.contains(message) {
            self.append(&mut open.file, &Line::Taken { at_ms: unix_millis(), message: message.clone() })?;
            open.taken.insert(message.clone());
        }
        Ok(())
    }

    fn append(&self, file: &mut File, line: &Line) -> Result<(), HistoryError> {
        let io = |source| HistoryError::Io { path: self.path.clone(), source };
        let mut text = serde_json::to_string(line).map_err(|error| io(error.into()))?;
        text.push('\n');
        let before = file.metadata().map_err(io)?.len();
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(|source| {
            // Half a line would make the next one unreadable.
            if let Err(error) = file.set_len(before) {
                tracing::error!(%error, path = %self.path.display(), "half a line stays in the history");
            }
            io(source)
        })
    }
}

fn read_text(path: &Path) -> Result<String, HistoryError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|source| HistoryError::Io { path: path.to_owned(), source }),
    }
}

fn parse(path: &Path, text: &str) -> Result<Contents, HistoryError> {
    let mut contents = Contents::default();
    let mut places: BTreeMap<Message, usize> = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let damaged = |problem: String| HistoryError::Damaged { path: path.to_owned(), line: number, problem };
        match serde_json::from_str(line).map_err(|error| damaged(error.to_string()))? {
            Line::Since { at_ms } => contents.since_ms = Some(at_ms),
            Line::Summary(summary) => contents.summaries.push(summary),
            Line::Sending { at_ms, message } => {
                places.insert(message.clone(), contents.sent.len());
                contents.sent.push(Sent { message, sent_ms: at_ms, taken_ms: None });
            }
            Line::Taken { at_ms, message } => {
                let sent = places.get(&message).and_then(|place| contents.sent.get_mut(*place));
                sent.ok_or_else(|| damaged("it takes what was never sent".to_owned()))?.taken_ms = Some(at_ms);
            }
        }
    }
    Ok(contents)
}

/// The history with all but the latest messages summed up.
fn shortened(contents: Contents, listed: usize) -> Contents {
    let Contents { since_ms, summaries, mut sent } = contents;
    let recent = sent.split_off(sent.len().saturating_sub(listed));
    let mut sums: BTreeMap<(String, What), Summary> =
        summaries.into_iter().map(|summary| ((summary.run.clone(), summary.what), summary)).collect();
    for Sent { message, sent_ms, .. } in sent {
        let Message { run, what, bytes, .. } = message;
        let sum = sums.entry((run.clone(), what)).or_insert(Summary {
            run,
            what,
            count: 0,
            bytes: 0,
            first_ms: sent_ms,
            last_ms: sent_ms,
        });
        sum.count += 1;
        sum.bytes += bytes;
        sum.first_ms = sum.first_ms.min(sent_ms);
        sum.last_ms = sum.last_ms.max(sent_ms);
    }
    Contents { since_ms, summaries: sums.into_values().collect(), sent: recent }
}

fn lines_of(contents: &Contents) -> serde_json::Result<String> {
    let mut lines = vec![Line::Since { at_ms: contents.since_ms.unwrap_or_else(unix_millis) }];
    lines.extend(contents.summaries.iter().cloned().map(Line::Summary));
    for Sent { message, sent_ms, taken_ms } in &contents.sent {
        lines.push(Line::Sending { at_ms: *sent_ms, message: message.clone() });
        lines.extend(taken_ms.map(|at_ms| Line::Taken { at_ms, message: message.clone() }));
    }
    lines.iter().map(|line| serde_json::to_string(line).map(|line| line + "\n")).collect()
}

#[cfg(test)]
mod tests;
