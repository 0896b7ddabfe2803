//! The base models at hand, known by digest. Hashing gigabytes at every start would be slow, so a
//! digest is taken again only when a file's size or time has changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rondo_base::BaseError;
use rondo_proto::base_tokens::OTHER_TOKENS;
use rondo_proto::files::{self, FileAccess};
use rondo_proto::v1::{BaseModel, BaseTokens};
use serde::{Deserialize, Serialize};

use crate::config::Model;
#[cfg(feature = "hub")]
use crate::hub;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The folder or file holds no model that can be used.
    #[error("model in {}: {source}", .dir.display())]
    Unreadable {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        source: Box<BaseError>,
    },
    /// The folder cannot be listed.
    #[error("model in {}: {source}", .dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A model of a hub cannot be fetched.
    #[error("model {repository:?}: {problem}")]
    Hub {
        /// The repository.
        repository: String,
        /// What is wrong, and the fix.
        problem: String,
    },
    /// The weights are the run's, and the tokens are not.
    #[error("base model {name:?} in {}: {OTHER_TOKENS}; take these files from where the operator has them", .dir.display())]
    OtherTokens {
        /// The run's name for it.
        name: String,
        /// The folder.
        dir: PathBuf,
    },
    /// No model of client.toml has the digest that the run names.
    #[error("base model {name:?} ({digest}) is not here: {}", explain(.known, .differences))]
    Absent {
        /// The run's name for it.
        name: String,
        /// The digest the run names.
        digest: String,
        /// Folders and digests of the models of client.toml.
        known: Vec<(PathBuf, String)>,
        /// For models of the same architecture: what differs. For folders that cannot be used: why.
        differences: Vec<String>,
    },
}

fn explain(known: &[(PathBuf, String)], differences: &[String]) -> String {
    if known.is_empty() && differences.is_empty() {
        return "client.toml lists no [[model]]".to_owned();
    }
    let models: Vec<String> = known.iter().map(|(dir, digest)| format!("{} is {digest}", dir.display())).collect();
    let models = (!models.is_empty()).then(|| models.join(", "));
    let parts: Vec<&str> = models.iter().chain(differences).map(String::as_str).collect();
    parts.join("; ")
}

/// Where the models of client.toml lie: folders and .gguf files. Models of a
/// hub that are not in the cache are fetched first.
///
/// # Errors
/// A hub's model cannot be fetched, or this program was built without the feature `hub`.
pub fn places(models: &[Model]) -> Result<Vec<PathBuf>, ModelError> {
    models.iter().map(place).collect()
}

fn place(model: &Model) -> Result<PathBuf, ModelError> {
    let Some(repository) = &model.hub else { return Ok(model.path.clone()) };
    let refuse = |problem: String| ModelError::Hub { repository: repository.clone(), problem };
    #[cfg(feature = "hub")]
    {
        let revision = model.revision.as_deref().unwrap_or(hub::DEFAULT_REVISION);
        let wanted = hub::Wanted::new(repository, revision, model.file.as_deref());
        let found = wanted.and_then(|wanted| hub::Hub::from_env()?.cached_or_fetched(&wanted));
        found.map_err(|error| refuse(error.to_string()))
    }
    #[cfg(not(feature = "hub"))]
    Err(refuse(
        "this rondo-client was built without the feature `hub`; build it with that, or download the model and give its `path`"
            .to_owned(),
    ))
}

/// The models in some places, looked at anew; nothing is kept.
///
/// # Errors
/// A folder or file holds no model that can be used.
pub fn describe(places: &[PathBuf]) -> Result<Vec<(PathBuf, BaseModel)>, ModelError> {
    let look = |dir: &PathBuf| Ok(look(dir, None)?.map(|known| (dir.clone(), known.base)));
    Ok(places.iter().map(look).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// A file of a model as the file system describes it:
/// name, bytes, modification time in ns since 1970.
type Stamp = (String, u64, u64);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    /// By which rules it was described; what older ones found may not be what counts now.
    #[serde(default)]
    rules: u32,
    stamps: Vec<Stamp>,
    base: BaseModel,
}

/// Raised when other files of a folder count in its digest.
const RULES: u32 = 1;

/// The models that client.toml lists.
#[derive(Debug)]
pub struct Models {
    dirs: Vec<PathBuf>,
    record: PathBuf,
    known: BTreeMap<PathBuf, Known>,
}

impl Models {
    /// Looks at every folder or .gguf file, with the help of the record of an earlier look.
    ///
    /// # Errors
    /// A folder without a model that can be used: client.toml
    /// is wrong, which is best reported at the start.
    pub fn open(dirs: Vec<PathBuf>, record: PathBuf) -> Result<Self, ModelError> {
        // The record only saves time; without it everything is hashed again.
        let known = fs::read(&record).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let mut models = Self { dirs, record, known };
        match models.refresh().into_iter().next() {
            Some(unusable) => Err(unusable),
            None => Ok(models),
        }
    }

    /// Looks again at what has changed since the last look. Answers the folders
    /// that cannot be used any more; they are left out.
    pub fn refresh(&mut self) -> Vec<ModelError> {
        let before = self.known.len();
        self.known.retain(|dir, _| self.dirs.contains(dir));
        let mut changed = before != self.known.len();
        let mut unusable = Vec::new();
        for dir in &self.dirs {
            match look(dir, self.known.get(dir)) {
                Ok(None) => {}
                Ok(Some(known)) => {
                    tracing::info!(dir = %dir.display(), digest = %known.base.digest, "base model");
                    self.known.insert(dir.clone(), known);
                    changed = true;
                }
                Err(error) => {
                    changed |= self.known.remove(dir).is_some();
                    unusable.push(error);
                }
            }
        }
        if changed {
            let saved = serde_json::to_vec(&self.known).map_err(io::Error::from);
            if let Err(error) = saved.and_then(|content| files::replace(&self.record, &content, FileAccess::Owner)) {
                tracing::warn!(path = %self.record.display(), %error, "model digests are not remembered");
            }
        }
        unusable
    }

    /// Digests of the models at hand.
    pub fn digests(&self) -> Vec<String> {
        self.known.values().map(|known| known.base.digest.clone()).collect()
    }

    /// What makes tokens in the models at hand, where that has a digest of its own.
    pub fn tokens(&self) -> Vec<BaseTokens> {
        let said = self.known.values().filter(|known| !known.base.token_digest.is_empty());
        let tokens = |known: &Known| BaseTokens {
            base: known.base.digest.clone(),
            token_digest: known.base.token_digest.clone(),
        };
        said.map(tokens).collect()
    }

    /// The folder or .gguf file of the model that a run names, looked at anew.
    /// Other folders that cannot be used do not matter.
    ///
    /// # Errors
    /// [`ModelError::Absent`] lists the models of client.toml, for a model of the same kind the
    /// file that differs, and the folders that cannot be used.
    pub fn find(&mut self, wanted: &BaseModel) -> Result<PathBuf, ModelError> {
        let unusable = self.refresh();
        for error in &unusable {
            tracing::warn!(%error, "a model of client.toml is left out");
        }
        let mut same = self.known.iter().filter(|(_, known)| known.base.digest == wanted.digest).peekable();
        if let Some((first, _)) = same.peek() {
            let first = (*first).clone();
            let makes = |known: &Known| known.base.token_digest == wanted.token_digest;
            let is_open = |known: &Known| wanted.token_digest.is_empty() || known.base.token_digest.is_empty();
            return match same.find(|(_, known)| is_open(known) || makes(known)) {
                Some((dir, _)) => Ok(dir.clone()),
                None => Err(ModelError::OtherTokens { name: wanted.name.clone(), dir: first }),
            };
        }
        let known = self.known.iter().map(|(dir, known)| (dir.clone(), known.base.digest.clone())).collect();
        let same_kind = self.known.iter().filter(|(_, known)| {
            known.base.architecture == wanted.architecture && known.base.hidden_size == wanted.hidden_size
        });
        let differences =
            same_kind.filter_map(|(dir, _)| rondo_base::check(dir, wanted).err()).map(|error| error.to_string());
        let differences = differences.chain(unusable.iter().map(ToString::to_string)).collect();
        Err(ModelError::Absent { name: wanted.name.clone(), digest: wanted.digest.clone(), known, differences })
    }
}

/// A folder's model, unless it is as it is known.
fn look(dir: &Path, known: Option<&Known>) -> Result<Option<Known>, ModelError> {
    let stamps = stamps(dir).map_err(|source| ModelError::Io { dir: dir.to_owned(), source })?;
    if known.is_some_and(|known| known.rules == RULES && known.stamps == stamps) {
        return Ok(None);
    }
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let base = rondo_base::describe(dir, &name)
        .map_err(|source| ModelError::Unreadable { dir: dir.to_owned(), source: Box::new(source) })?;
    Ok(Some(Known { rules: RULES, stamps, base }))
}

fn stamps(path: &Path) -> io::Result<Vec<Stamp>> {
    let stamp = |name: &OsStr, about: &fs::Metadata| {
        let since = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        io::Result::Ok((name.to_string_lossy().into_owned(), about.len(), time))
    };
    if rondo_base::is_gguf(path) {
        return Ok(vec![stamp(path.file_name().unwrap_or_default(), &fs::metadata(path)?)?]);
    }
    let mut stamps = Vec::new();
    for found in fs::read_dir(path)? {
        let found = found?;
        // Follows links: model folders are often made of links into a cache.
        let Ok(about) = fs::metadata(found.path()) else { continue };
        if about.is_file() {
            stamps.push(stamp(&found.file_name(), &about)?);
        }
    }
    stamps.sort();
    Ok(stamps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_breaks_is_left_out_and_the_others_are_found() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/goldens/tiny-bert");
        let temp = tempfile::tempdir().unwrap();
        let dirs = ["good", "broken"].map(|name| temp.path().join(name));
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
            for file in ["config.json", "model.safetensors", "tokenizer.json"] {
                fs::copy(golden.join(file), dir.join(file)).unwrap();
            }
        }
        let tokenizer = dirs[1].join("tokenizer.json");
        fs::write(&tokenizer, fs::read_to_string(&tokenizer).unwrap() + "\n").unwrap();
        let [good, broken] = dirs.each_ref().map(|dir| rondo_base::describe(dir, "tiny").unwrap());
        assert_ne!(good.digest, broken.digest);

        let record = temp.path().join("models.json");
        let mut models = Models::open(dirs.to_vec(), record.clone()).unwrap();
        assert_eq!(models.find(&broken).unwrap(), dirs[1]);
        fs::write(dirs[1].join("config.json"), "{").unwrap();
        assert_eq!(models.find(&good).unwrap(), dirs[0]);
        assert_eq!(models.digests(), std::slice::from_ref(&good.digest));
        let error = models.find(&broken).unwrap_err().to_string();
        assert!(error.contains("is not here") && error.contains(&good.digest), "{error}");
        assert!(error.contains(&format!("model in {}", dirs[1].display())), "says what is wrong: {error}");
        assert!(Models::open(dirs.to_vec(), record).is_err(), "at the start it is an error");
        fs::remove_dir_all(&dirs[0]).unwrap();
        let error = models.find(&good).unwrap_err().to_string();
        assert!(!error.contains("lists no [[model]]"), "{error}");
    }
    #[test]
    fn a_gguf_file_is_found_by_its_digest() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/goldens/gguf/tiny.gguf");
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("tiny.gguf");
        let record = temp.path().join("models.json");
        fs::copy(golden, &path).unwrap();
        fs::write(temp.path().join("beside.txt"), "of no matter").unwrap();
        let wanted = rondo_base::describe(&path, "tiny").unwrap();
        let mut models = Models::open(vec![path.clone()], record).unwrap();
        assert_eq!(models.find(&wanted).unwrap(), path);
        // The same size and another content, seen by its time.
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        let error = models.find(&wanted).unwrap_err().to_string();
        assert!(error.contains("tiny.gguf has digest"), "{error}");
    }
}
