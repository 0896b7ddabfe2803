//! The terms of the runs that this client was asked to take part in, as it was asked: one file for
//! each run, `terms/<run>.json`. A person decides by them, and declarations are made from them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rondo_proto::files::{self, FileAccess};
use rondo_proto::{Digest, RunId};
use serde::{Deserialize, Serialize};

/// Runs that are remembered; of more, those that were asked for longest ago are dropped.
const REMEMBERED: usize = 200;

/// What became of an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A person has yet to decide.
    Undecided,
    /// This client takes part.
    Accepted,
    /// It does not.
    Declined,
}

/// What a run asks for, with what it would use here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The run.
    pub run: RunId,
    /// The text of the run file.
    pub run_file: String,
    /// The run's name for the base model.
    pub base: String,
    /// Digest of the base model, as the coordinator spelt it.
    pub base_digest: String,
    /// Digest of the adapter that the run starts from; empty without one.
    #[serde(default)]
    pub initial: String,
    /// This client's data set for the run.
    pub dataset: String,
    /// Its rows that the run would train on.
    pub train_rows: u64,
    /// Its rows that are held out, or all that the run would measure on.
    pub held_out_rows: u64,
    /// The rank that this client would train with.
    pub rank: u32,
    /// When it was asked first, milliseconds since 1970.
    pub asked_ms: i64,
    /// What became of it.
    pub standing: Standing,
}

impl Terms {
    /// Pins what a person says yes or no to: run file, base model and start adapter.
    pub fn digest(&self) -> Digest {
        let parts = [self.run.as_str(), &self.run_file, &self.base_digest, &self.initial];
        let lengths: Vec<String> = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
        Digest::of(lengths.concat().as_bytes())
    }

    /// Whether both are about the same, whatever their times and what became of them.
    fn is_alike(&self, other: &Self) -> bool {
        Self { asked_ms: other.asked_ms, standing: other.standing, ..self.clone() } == *other
    }
}

/// The folder of terms. The daemon alone writes it (see [`crate::home::Home`]).
#[derive(Debug, Clone)]
pub struct TermsFolder {
    dir: PathBuf,
}

impl TermsFolder {
    /// The folder; it is made when the first terms come.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn path(&self, run: &RunId) -> PathBuf {
        self.dir.join(format!("{run}.json"))
    }

    /// The terms of a run, if there are any that can be read.
    pub fn get(&self, run: &RunId) -> Option<Terms> {
        read(&self.path(run))
    }

    /// All terms, those asked for last first.
    pub fn list(&self) -> Vec<Terms> {
        let found = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut all: Vec<Terms> = found.filter_map(|entry| read(&entry.path())).collect();
        all.sort_by(|a, b| (b.asked_ms, &a.run).cmp(&(a.asked_ms, &b.run)));
        all
    }

    /// Keeps terms; they are on the disk when this returns. Answers whether they are new, or stand
    /// otherwise than before.
    ///
    /// # Errors
    /// The file cannot be written, or those of old runs cannot be removed.
    pub fn put(&self, terms: Terms) -> io::Result<bool> {
        let terms = match self.get(&terms.run) {
            Some(before) if before.is_alike(&terms) && before.standing == terms.standing => return Ok(false),
            Some(before) if before.is_alike(&terms) => Terms { asked_ms: before.asked_ms, ..terms },
            _ => terms,
        };
        fs::create_dir_all(&self.dir)?;
        files::replace(&self.path(&terms.run), &serde_json::to_vec_pretty(&terms)?, FileAccess::Owner)?;
        for old in self.list().into_iter().skip(REMEMBERED) {
            match fs::remove_file(self.path(&old.run)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Notes what became of a run whose terms are known.
    ///
    /// # Errors
    /// As of [`Self::put`].
    pub fn note(&self, run: &RunId, standing: Standing) -> io::Result<()> {
        self.get(run).map_or(Ok(()), |terms| self.put(Terms { standing, ..terms }).map(|_| ()))
    }
}

fn read(path: &Path) -> Option<Terms> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(run: &str, asked_ms: i64) -> Terms {
        Terms {
            run: RunId::new(run).unwrap(),
            run_file: "name = \"x\"".to_owned(),
            base: "tiny".to_owned(),
            base_digest: "blake3:1".to_owned(),
            initial: String::new(),
            dataset: "reviews".to_owned(),
            train_rows: 42,
            held_out_rows: 18,
            rank: 2,
            asked_ms,
            standing: Standing::Undecided,
        }
    }

    #[test]
    fn terms_are_pinned_by_what_a_person_agrees_to() {
        let first = terms("a", 1);
        assert_eq!(first.digest(), Terms { train_rows: 43, asked_ms: 2, ..first.clone() }.digest());
        for other in [
            Terms { run_file: "name = \"y\"".to_owned(), ..first.clone() },
            Terms { base_digest: "blake3:2".to_owned(), ..first.clone() },
            Terms { initial: "blake3:3".to_owned(), ..first.clone() },
            // Where one part ends and the next begins counts as well.
            Terms { base_digest: "blake3:".to_owned(), initial: "1".to_owned(), ..first.clone() },
        ] {
            assert_ne!(first.digest(), other.digest());
        }
    }

    #[test]
    fn the_folder_keeps_the_latest_runs() {
        let dir = tempfile::tempdir().unwrap();
        let folder = TermsFolder::new(dir.path().join("terms"));
        assert!(folder.list().is_empty());
        assert!(folder.put(terms("a", 1)).unwrap());
        assert!(!folder.put(terms("a", 9)).unwrap(), "asked again for the same");
        folder.note(&RunId::new("a").unwrap(), Standing::Accepted).unwrap();
        let kept = folder.get(&RunId::new("a").unwrap()).unwrap();
        assert_eq!((kept.standing, kept.asked_ms), (Standing::Accepted, 1));
        for n in 0..REMEMBERED {
            folder.put(terms(&format!("b-{n}"), 10 + n as i64)).unwrap();
        }
        assert_eq!(folder.list().len(), REMEMBERED);
        assert!(folder.get(&kept.run).is_none());
    }
}
