//! Models from a Hugging Face hub, through the `hf-hub` crate and its cache folder.
//!
//! What is fetched is decided here: the files that a base is made of and a few that say how to use
//! it, never code or pickles. The run's digest decides later whether they are the right ones. A
//! download that was cut goes on where it stopped, also after a restart.

mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use rondo_base::{INDEX_FILE, Index, without_index};
use serde::Deserialize;

pub use error::HubError;

/// The revision where none is given.
pub const DEFAULT_REVISION: &str = "main";
/// How often a download that stops is taken up again, and how long after;
/// each attempt goes on where the last one stopped.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];
/// Taken where they are there: no part of the base's digest.
const USEFUL: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "chat_template.jinja"];

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    repository: String,
    revision: String,
    file: Option<String>,
}

impl Wanted {
    /// A repository "owner/name", a commit, tag or branch, and the .gguf file if that is the model.
    ///
    /// # Errors
    /// [`HubError::Name`]: names become parts of addresses and of paths in the cache.
    pub fn new(repository: &str, revision: &str, file: Option<&str>) -> Result<Self, HubError> {
        let refuse = |what, name: &str, fix| Err(HubError::Name { what, name: name.to_owned(), fix });
        if !is_plain_path(repository) || repository.split('/').count() > 2 {
            return refuse("repository", repository, "write it as owner/name");
        }
        if !is_plain_path(revision) {
            return refuse("revision", revision, "give a commit, a tag or a branch");
        }
        if let Some(file) = file.filter(|file| !is_plain_path(file) || !file.ends_with(".gguf")) {
            return refuse("file", file, "give the path of a .gguf file in the repository");
        }
        Ok(Self { repository: repository.to_owned(), revision: revision.to_owned(), file: file.map(str::to_owned) })
    }

    fn unfit(&self, problem: impl Into<String>) -> HubError {
        let repository = self.repository.clone();
        let revision = self.revision.clone();
        HubError::Unfit { repository, revision, problem: problem.into() }
    }

    fn request(&self, what: &str, source: ApiError) -> HubError {
        let repository = self.repository.clone();
        let revision = self.revision.clone();
        HubError::Request { repository, revision, what: what.to_owned(), source: Box::new(source) }
    }
}

/// Parts between slashes of letters, digits, '.', '_' and '-', none of them dots alone.
fn is_plain_path(path: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    path.split('/').all(|part| part.bytes().all(allowed) && part.bytes().any(|byte| byte != b'.'))
}

/// What the hub says of a repository.
#[derive(Deserialize)]
struct About {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}

/// A hub and the cache for what comes from it.
pub struct Hub {
    endpoint: Option<String>,
    cache: PathBuf,
}

impl Hub {
    /// By HF_ENDPOINT (default: the public hub) and HF_HOME (default: ~/.cache/huggingface), as
    /// Hugging Face's own programs do.
    ///
    /// # Errors
    /// No place for the cache.
    pub fn from_env() -> Result<Self, HubError> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = match set("HF_HOME") {
            Some(home) => PathBuf::from(home),
            None => std::env::home_dir().ok_or(HubError::NoHome)?.join(".cache/huggingface"),
        };
        Ok(Self::new(set("HF_ENDPOINT"), &home))
    }

    /// An endpoint (`None`: the public hub) and the folder that HF_HOME would name.
    pub fn new(endpoint: Option<String>, home: &Path) -> Self {
        let endpoint = endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned());
        Self { endpoint, cache: home.join("hub") }
    }

    /// The model's folder or .gguf file out of the cache, and only if it is not there whole, from
    /// the hub. So a daemon starts without a network, and a branch is looked up once.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn cached_or_fetched(&self, wanted: &Wanted) -> Result<PathBuf, HubError> {
        match self.cached(wanted) {
            Some(found) => Ok(found),
            None => self.fetch(wanted),
        }
    }

    /// Fetches what is not in the cache yet and answers the model's folder or .gguf file there.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn fetch(&self, wanted: &Wanted) -> Result<PathBuf, HubError> {
        let absolute = std::path::absolute(&self.cache).map_err(|source| self.io(source))?;
        let mut builder = ApiBuilder::from_cache(Cache::new(absolute)).with_progress(io::stderr().is_terminal());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|error| wanted.request("client", error))?;
        let named = repo(wanted, &wanted.revision);
        let about = about(&api.repo(named.clone()), wanted)?;
        // From here on by commit: a branch that moves meanwhile must not mix two models.
        let repo = api.repo(repo(wanted, &about.sha));
        let sizes: BTreeMap<&str, Option<u64>> =
            about.siblings.iter().map(|sibling| (sibling.rfilename.as_str(), sibling.size)).collect();
        let get = |name: &str| download(&repo, wanted, name, sizes.get(name).copied().flatten());

        if let Some(file) = &wanted.file {
            if !sizes.contains_key(file.as_str()) {
                return Err(wanted.unfit(format!("has no file {file:?}; {}", gguf_files(&sizes))));
            }
            let found = get(file)?;
            self.remember(&named, &about.sha)?;
            return Ok(found);
        }
        for needed in NEEDED {
            if !sizes.contains_key(needed) {
                return Err(wanted.unfit(format!("has no {needed}; {}", gguf_files(&sizes))));
            }
        }
        let weights = if sizes.contains_key(INDEX_FILE) {
            shards(&get(INDEX_FILE)?, wanted)?
        } else {
            weights(sizes.keys().copied())
        };
        if weights.is_empty() {
            return Err(wanted.unfit("has no .safetensors files; other formats are not read"));
        }
        if let Some(missing) = weights.iter().find(|name| !sizes.contains_key(name.as_str())) {
            return Err(wanted.unfit(format!("has no {missing:?}, which its index names")));
        }
        for useful in USEFUL.iter().filter(|name| sizes.contains_key(**name)) {
            get(useful)?;
        }
        for name in &weights {
            get(name)?;
        }
        get("tokenizer.json")?;
        let config = get("config.json")?;
        self.remember(&named, &about.sha)?;
        Ok(config.parent().unwrap_or(Path::new("")).to_owned())
    }

    /// What the cache holds whole.
    fn cached(&self, wanted: &Wanted) -> Option<PathBuf> {
        let cache = Cache::new(self.cache.clone()).repo(repo(wanted, &wanted.revision));
        if let Some(file) = &wanted.file {
            return cache.get(file);
        }
        let folder = cache.get("config.json")?.parent()?.to_owned();
        cache.get("tokenizer.json")?;
        let weights = match cache.get(INDEX_FILE) {
            Some(index) => shards(&index, wanted).ok()?,
            None => {
                let names: Vec<String> = fs::read_dir(&folder)
                    .ok()?
                    .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                    .collect();
                weights(names.iter().map(String::as_str))
            }
        };
        (!weights.is_empty() && weights.iter().all(|name| cache.get(name).is_some())).then_some(folder)
    }

    /// Notes which commit a branch or tag stands for: done last, so that what is noted is whole.
    fn remember(&self, named: &Repo, commit: &str) -> Result<(), HubError> {
        Cache::new(self.cache.clone()).repo(named.clone()).create_ref(commit).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> HubError {
        HubError::Io { path: self.cache.clone(), source }
    }
}

fn repo(wanted: &Wanted, revision: &str) -> Repo {
    Repo::with_revision(wanted.repository.clone(), RepoType::Model, revision.to_owned())
}

fn about(repo: &ApiRepo, wanted: &Wanted) -> Result<About, HubError> {
    let answer = repo.info_request().query("blobs", "true").call();
    let answer = answer.map_err(|error| wanted.request("the list of files", Box::new(error).into()))?;
    let about: About = answer.into_json().map_err(|error| wanted.request("the list of files", error.into()))?;
    // What the hub says becomes paths in the cache.
    if !is_plain_path(&about.sha) || about.sha.contains('/') {
        return Err(wanted.unfit(format!("has the commit {:?}, which is none", about.sha)));
    }
    Ok(About { siblings: about.siblings.into_iter().filter(|file| is_plain_path(&file.rfilename)).collect(), ..about })
}

/// One file, in as many attempts as it may take.
fn download(repo: &ApiRepo, wanted: &Wanted, name: &str, expected: Option<u64>) -> Result<PathBuf, HubError> {
    let mut attempt = 1;
    let path = loop {
        // `get` takes what the cache has: under a commit's name, it is what the hub has.
        match repo.get(name) {
            Ok(path) => break path,
            Err(error) if attempt == ATTEMPTS => return Err(wanted.request(name, error)),
            Err(error) => {
                tracing::warn!(name, %error, "download stopped, trying to go on");
                std::thread::sleep(PAUSE * attempt);
                attempt += 1;
            }
        }
    };
    let io = |source| HubError::Io { path: path.clone(), source };
    let found = fs::metadata(&path).map_err(io)?.len();
    match expected {
        Some(expected) if expected != found => {
            // A server that ignores where a download should go on leaves a file that is too long.
            let content = fs::canonicalize(&path).map_err(io)?;
            fs::remove_file(content).and_then(|()| fs::remove_file(&path)).map_err(io)?;
            Err(HubError::Size { name: name.to_owned(), expected, found })
        }
        _ => Ok(path),
    }
}

/// The files that an index names, which lie beside it in the repository.
fn shards(index: &Path, wanted: &Wanted) -> Result<BTreeSet<String>, HubError> {
    let read = Index::read(index).map_err(|error| wanted.unfit(format!("has a broken {INDEX_FILE}: {error}")))?;
    match read.files().into_iter().find(|name| !is_plain_path(name)) {
        Some(other) => Err(wanted.unfit(format!("has an {INDEX_FILE} that names {other:?}"))),
        None => Ok(read.files()),
    }
}

/// Without an index: what a folder of the same files would be made of.
fn weights<'n>(names: impl Iterator<Item = &'n str>) -> BTreeSet<String> {
    without_index(names.filter(|name| is_plain_path(name) && !name.contains('/')))
}

/// The fix where a repository holds .gguf files.
fn gguf_files(sizes: &BTreeMap<&str, Option<u64>>) -> String {
    let names: Vec<&str> = sizes.keys().copied().filter(|name| name.ends_with(".gguf")).collect();
    match names.as_slice() {
        [] => "a model needs config.json, tokenizer.json and .safetensors files".to_owned(),
        names => format!("name one of its .gguf files as `file`: {}", names.join(", ")),
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
