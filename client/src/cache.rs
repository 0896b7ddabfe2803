//! Downloaded blobs, by digest: `cache/<hex>`, and `cache/<hex>.part` while one is on its way.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rondo_proto::files::{self, FileAccess};
use rondo_proto::{Digest, RunId};
use rondo_wire::transfer::{ReceiveError, Receiver};

use crate::disk;

/// Runs whose blobs are kept at the same time; the one that worked least recently goes first.
const RUNS: usize = 8;

/// Why a blob could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// No room for it.
    #[error("no space left for blob {digest} in {}: free some there ({source})", .dir.display())]
    NoSpace {
        /// The blob.
        digest: Digest,
        /// The cache's folder.
        dir: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error("cache: {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// What came is not what was asked for.
    #[error(transparent)]
    Received(ReceiveError),
}

/// The cache's folder.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    /// What each run needed last, the run that worked least recently first.
    needs: Vec<(RunId, BTreeSet<Digest>)>,
}

impl Cache {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(root: PathBuf) -> Result<Self, CacheError> {
        fs::create_dir_all(&root).map_err(io_error(&root))?;
        // The list only says what may go; without it every blob
        // is forgotten and fetched again when asked for.
        let needs = fs::read(root.join("runs.json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Self { root, needs: needs.unwrap_or_default() })
    }

    /// The blob's file, if it is here and whole.
    pub fn find(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.root.join(digest.hex());
        match Digest::of_file(&path) {
            Ok(found) if found == *digest => Some(path),
            Ok(_) => {
                tracing::warn!(%digest, "a damaged blob is fetched again");
                let _ = fs::remove_file(&path);
                None
            }
            Err(_) => None,
        }
    }

    /// Starts or takes up the download of a blob.
    ///
    /// # Errors
    /// The blob's part file cannot be opened or read, or the disk is full.
    pub fn begin(&self, digest: Digest) -> Result<Receiver, CacheError> {
        Receiver::open(&self.root.join(digest.hex()), digest).map_err(|error| self.explain(digest, error))
    }

    /// Distinguishes a full disk from other failures.
    pub fn explain(&self, digest: Digest, error: ReceiveError) -> CacheError {
        match error {
            ReceiveError::Io { source, .. } if files::is_full(&source) => {
                CacheError::NoSpace { digest, dir: self.root.clone(), source }
            }
            ReceiveError::Io { path, source } => CacheError::Io { path, source },
            other => CacheError::Received(other),
        }
    }

    /// Notes what a run needs now, and removes every blob that no run needs any more.
    ///
    /// # Errors
    /// The list cannot be written, the folder cannot be read, or a blob cannot be removed.
    pub fn keep(&mut self, run: &RunId, digests: impl IntoIterator<Item = Digest>) -> Result<(), CacheError> {
        self.needs.retain(|(other, _)| other != run);
        self.needs.push((run.clone(), digests.into_iter().collect()));
        let surplus = self.needs.len().saturating_sub(RUNS);
        self.needs.drain(..surplus);
        let path = self.root.join("runs.json");
        let content = serde_json::to_vec(&self.needs).map_err(|error| io_error(&path)(error.into()))?;
        files::replace(&path, &content, FileAccess::Owner).map_err(io_error(&path))?;

        let needed: BTreeSet<String> = self.needs.iter().flat_map(|(_, all)| all).map(Digest::hex).collect();
        for found in fs::read_dir(&self.root).map_err(io_error(&self.root))? {
            let path = found.map_err(io_error(&self.root))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let hex = name.strip_suffix(".part").unwrap_or(&name);
            let blob = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            if blob && !needed.contains(hex) {
                disk::remove(&path).map_err(io_error(&path))?;
            }
        }
        Ok(())
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CacheError + use<> {
    let path = path.to_owned();
    move |source| CacheError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use rondo_proto::v1;

    use super::*;

    fn run(name: &str) -> RunId {
        RunId::new(name).unwrap()
    }

    fn chunk(data: &'static [u8]) -> v1::Chunk {
        v1::Chunk { data: data.into(), total_bytes: 0 }
    }

    fn store(cache: &Cache, content: &'static [u8]) -> Digest {
        let digest = Digest::of(content);
        let mut receiver = cache.begin(digest).unwrap();
        receiver.absorb(&chunk(content)).unwrap();
        receiver.finish().unwrap();
        digest
    }

    #[test]
    fn a_download_goes_on_where_it_stopped_and_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("cache")).unwrap();
        let digest = Digest::of(b"hello");
        cache.begin(digest).unwrap().absorb(&chunk(b"hel")).unwrap();
        assert_eq!(cache.find(&digest), None);
        let mut receiver = Cache::open(dir.path().join("cache")).unwrap().begin(digest).unwrap();
        assert_eq!(receiver.offset(), 3);
        receiver.absorb(&chunk(b"lo")).unwrap();
        let path = receiver.finish().unwrap();
        assert_eq!(cache.find(&digest), Some(path.clone()));
        fs::write(&path, b"hellO").unwrap();
        assert_eq!(cache.find(&digest), None);
    }

    #[test]
    fn what_no_run_needs_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(dir.path().to_owned()).unwrap();
        let [a, b, c] = [b"a", b"b", b"c"].map(|content| store(&cache, content));
        cache.keep(&run("one"), [a, b]).unwrap();
        assert_eq!([a, b, c].map(|digest| cache.find(&digest).is_some()), [true, true, false]);
        // The list outlives the process.
        let mut cache = Cache::open(dir.path().to_owned()).unwrap();
        cache.keep(&run("two"), [b]).unwrap();
        cache.keep(&run("one"), []).unwrap();
        assert_eq!([a, b].map(|digest| cache.find(&digest).is_some()), [false, true]);
        for number in 0..RUNS {
            cache.keep(&run(&format!("r{number}")), []).unwrap();
        }
        assert_eq!(cache.find(&b), None, "the run that worked least recently lost its blobs");
    }
}
