//! Updates that were trained and not yet settled with the coordinator, one folder each:
//! `spool/<run>/<round>.<attempt>/{update.safetensors,meta.json}`.
//!
//! An entry is written beside its place, flushed, and renamed into it: it is there as a whole or
//! not at all. It stays through restarts of either side until one of these comes:
//! - the coordinator accepted it, and a poll after that brings something else than the same
//!   assignment. No published round has to name it for that: the coordinator says
//!   "accepted" only once the update and the record of it are on its disk, where the
//!   aggregation will find them, however often it is restarted. That the entry outlives the
//!   acceptance by one poll covers the one case left: a coordinator that lost its disk asks
//!   for the update again, and it is still here;
//! - the coordinator refused it for good, or says that it is settled (`upload_settled`).

mod entry;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rondo_methods::{FileError, MethodError};
use rondo_proto::files::{self, FileAccess};
use rondo_proto::{Digest, RunId, v1};

use crate::disk::{self, Disk, WriteTensors};

use entry::Meta;
pub use entry::{Charge, Entry, Facts, Key};

/// The tensors' file in an entry's folder.
const UPDATE: &str = "update.safetensors";
/// The record beside it.
const META: &str = "meta.json";
/// Folders of entries that were never finished begin with this.
const UNFINISHED: &str = ".new-";

/// Why the spool failed. What was in it before stays.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// No room for the update.
    #[error(
        "no space left for the update of {key} in {}: free some there or move the daemon's folder to a larger disk; \
         earlier updates are kept ({source})", .dir.display()
    )]
    NoSpace {
        /// The update.
        key: Key,
        /// The spool's folder.
        dir: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The tensors cannot be laid out as a file.
    #[error("the update of {key} cannot be written: {source}")]
    Tensors {
        /// The update.
        key: Key,
        /// Why.
        source: Box<MethodError>,
    },
    /// A file cannot be read or written.
    #[error("spool: {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The spool's folder. Only one daemon writes it (see [`crate::home::Home`]).
pub struct Spool {
    root: PathBuf,
    disk: Box<dyn Disk>,
}

impl Spool {
    /// Opens the folder, or makes it, and removes entries that were never finished.
    ///
    /// # Errors
    /// The folder cannot be made or read, or an unfinished entry cannot be removed.
    pub fn open(root: PathBuf, disk: Box<dyn Disk>) -> Result<Self, SpoolError> {
        fs::create_dir_all(&root).map_err(io_error(&root))?;
        for found in fs::read_dir(&root).map_err(io_error(&root))? {
            let path = found.map_err(io_error(&root))?.path();
            if name(&path).starts_with(UNFINISHED) {
                disk::remove(&path).map_err(io_error(&path))?;
            }
        }
        Ok(Self { root, disk })
    }

    /// Keeps an update, whose file `write` makes. An entry
    /// that is already there under the key is replaced.
    ///
    /// # Errors
    /// [`SpoolError::NoSpace`] on a full disk. Nothing is left of the
    /// new entry then, and all others are untouched.
    pub fn put(&self, key: &Key, facts: &Facts, write: &WriteTensors<'_>) -> Result<Entry, SpoolError> {
        let new = self.root.join(format!("{UNFINISHED}{}-{}.{}", key.run, key.round, key.attempt));
        let written = self.write_entry(&new, key, facts, write).and_then(|meta| {
            let place = self.place(key);
            let folder = self.root.join(key.run.as_str());
            let moved = fs::create_dir_all(&folder)
                .and_then(|()| disk::remove(&place))
                .and_then(|()| fs::rename(&new, &place))
                .and_then(|()| files::sync_folder(&folder))
                .and_then(|()| files::sync_folder(&self.root));
            moved.map_err(at(&place))?;
            Ok(self.entry(meta))
        });
        written.map_err(|fault| {
            if let Err(error) = disk::remove(&new) {
                tracing::warn!(path = %new.display(), %error, "an unfinished spool entry could not be removed");
            }
            match fault {
                MethodError::Io { source, .. } | MethodError::File(FileError::Io { source, .. })
                    if files::is_full(&source) =>
                {
                    SpoolError::NoSpace { key: key.clone(), dir: self.root.clone(), source }
                }
                MethodError::Io { path, source } | MethodError::File(FileError::Io { path, source }) => {
                    SpoolError::Io { path, source }
                }
                other => SpoolError::Tensors { key: key.clone(), source: Box::new(other) },
            }
        })
    }

    fn write_entry(&self, new: &Path, key: &Key, facts: &Facts, write: &WriteTensors<'_>) -> Result<Meta, MethodError> {
        disk::remove(new).and_then(|()| fs::create_dir_all(new)).map_err(at(new))?;
        let update = new.join(UPDATE);
        let bytes = self.disk.tensors(&update, write)?;
        let digest = Digest::of_file(&update).map_err(at(&update))?;
        let meta = Meta { key: key.clone(), digest, bytes, facts: facts.clone(), accepted: false };
        let record = new.join(META);
        let content = serde_json::to_vec_pretty(&meta).map_err(|error| at(&record)(error.into()))?;
        self.disk.write(&record, &content).map_err(at(&record))?;
        files::sync_folder(new).map_err(at(new))?;
        Ok(meta)
    }

    /// The entry under a key, if its file is whole. A damaged
    /// entry is removed, and its work is done again.
    ///
    /// # Errors
    /// A damaged entry cannot be removed.
    pub fn find(&self, key: &Key) -> Result<Option<Entry>, SpoolError> {
        let place = self.place(key);
        if !place.exists() {
            return Ok(None);
        }
        let whole = |entry: &Entry| Digest::of_file(&entry.path).is_ok_and(|digest| digest == entry.digest);
        match self.read(&place).filter(|entry| entry.key == *key && whole(entry)) {
            Some(entry) => Ok(Some(entry)),
            None => {
                tracing::warn!(%key, path = %place.display(), "a damaged spool entry is removed");
                self.remove(key)?;
                Ok(None)
            }
        }
    }

    /// Every entry that can be read, in the order of runs, rounds and attempts.
    ///
    /// # Errors
    /// The spool's folder or a run's folder cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, SpoolError> {
        let mut entries = Vec::new();
        for run in fs::read_dir(&self.root).map_err(io_error(&self.root))? {
            let run = run.map_err(io_error(&self.root))?.path();
            if !run.is_dir() || name(&run).starts_with(UNFINISHED) {
                continue;
            }
            for place in fs::read_dir(&run).map_err(io_error(&run))? {
                entries.extend(self.read(&place.map_err(io_error(&run))?.path()));
            }
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    /// Notes that the coordinator holds the update.
    ///
    /// # Errors
    /// The entry's record cannot be written.
    pub fn mark_accepted(&self, entry: &Entry) -> Result<(), SpoolError> {
        self.note(&self.place(&entry.key), entry, entry.facts.charge.clone(), true)
    }

    /// Notes that the ledger has the update.
    ///
    /// # Errors
    /// The entry's record cannot be written.
    pub fn mark_paid(&self, entry: Entry, report: v1::PrivacyReport) -> Result<Entry, SpoolError> {
        let charge = Charge::Paid(report);
        self.note(&self.place(&entry.key), &entry, charge.clone(), entry.accepted)?;
        Ok(Entry { facts: Facts { charge, ..entry.facts }, ..entry })
    }

    /// The same bytes for a later attempt at the same round; the entry of the earlier one is gone.
    ///
    /// # Errors
    /// The entry cannot be moved, or its record cannot be written.
    pub fn readdress(&self, entry: &Entry, key: &Key) -> Result<Entry, SpoolError> {
        let from = self.place(&entry.key);
        let to = self.place(key);
        let entry = Entry { key: key.clone(), path: to.join(UPDATE), accepted: false, ..entry.clone() };
        let folder = self.root.join(key.run.as_str());
        // The place says which attempt it is for, so that a crash between the two leaves a whole
        // entry either way.
        let moved = disk::remove(&to).and_then(|()| fs::rename(&from, &to)).and_then(|()| files::sync_folder(&folder));
        moved.map_err(io_error(&to))?;
        self.note(&to, &entry, entry.facts.charge.clone(), false)?;
        Ok(entry)
    }

    fn note(&self, place: &Path, entry: &Entry, charge: Charge, accepted: bool) -> Result<(), SpoolError> {
        let Entry { key, digest, bytes, facts, .. } = entry.clone();
        let meta = Meta { key, digest, bytes, facts: Facts { charge, ..facts }, accepted };
        let path = place.join(META);
        let content = serde_json::to_vec_pretty(&meta).map_err(|error| io_error(&path)(error.into()))?;
        files::replace(&path, &content, FileAccess::Owner).map_err(io_error(&path))
    }

    /// Drops the entry under a key; that there is none is fine.
    ///
    /// # Errors
    /// The entry's folder cannot be removed.
    pub fn remove(&self, key: &Key) -> Result<(), SpoolError> {
        let place = self.place(key);
        disk::remove(&place).map_err(io_error(&place))?;
        // Fails while other rounds of the run are here, which is as it should be.
        let _ = fs::remove_dir(self.root.join(key.run.as_str()));
        Ok(())
    }

    fn place(&self, key: &Key) -> PathBuf {
        self.root.join(key.run.as_str()).join(format!("{}.{}", key.round, key.attempt))
    }

    fn entry(&self, meta: Meta) -> Entry {
        let Meta { key, digest, bytes, facts, accepted } = meta;
        Entry { path: self.place(&key).join(UPDATE), key, digest, bytes, facts, accepted }
    }

    fn read(&self, place: &Path) -> Option<Entry> {
        let mut meta: Meta = serde_json::from_slice(&fs::read(place.join(META)).ok()?).ok()?;
        let key = key_of(place)?;
        if meta.key != key {
            // One that was on its way to another attempt;
            // the coordinator holds nothing for this one.
            meta.accepted = false;
        }
        let same_round = (&meta.key.run, meta.key.round) == (&key.run, key.round);
        same_round.then(|| self.entry(Meta { key, ..meta }))
    }
}

/// What the entry in a place is for.
fn key_of(place: &Path) -> Option<Key> {
    let run = RunId::new(name(place.parent()?)).ok()?;
    let own = name(place);
    let (round, attempt) = own.split_once('.')?;
    Some(Key { run, round: round.parse().ok()?, attempt: attempt.parse().ok()? })
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> MethodError + use<> {
    let path = path.to_owned();
    move |source| MethodError::Io { path, source }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SpoolError + use<> {
    let path = path.to_owned();
    move |source| SpoolError::Io { path, source }
}

#[cfg(test)]
mod tests;
