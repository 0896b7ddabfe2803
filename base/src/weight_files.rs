//! Which .safetensors files of a folder are the model. One rule for everybody: registration,
//! digest, training, merging and fetching.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::BaseError;
use crate::files::is_weights;
use crate::index::{INDEX_FILE, Index};

/// The one file of a model that is not in parts.
const USUAL_FILE: &str = "model.safetensors";

/// The weight files of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightFiles {
    /// What the model is made of, sorted by name.
    pub counted: Vec<String>,
    /// Others that lie beside them, sorted by name.
    pub passed_over: Vec<String>,
    /// Where there is one, it decides.
    pub index: Option<Index>,
}

impl WeightFiles {
    /// Those of a folder. With an index, the files that it names count. Without one,
    /// model.safetensors alone does; and where there is none, all but copies in another layout
    /// (`consolidated*`) and adapters.
    ///
    /// # Errors
    /// The folder or the index cannot be read; a file that the index names, or a part of
    /// "00001-of-00003", is missing; there are no weights.
    pub fn find(dir: &Path) -> Result<Self, BaseError> {
        let io = |source| BaseError::Io { path: dir.to_owned(), source };
        let mut there = BTreeSet::new();
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            if let Some(name) = entry.file_name().to_str().filter(|name| is_weights(name) && !entry.path().is_dir()) {
                there.insert(name.to_owned());
            }
        }
        let path = dir.join(INDEX_FILE);
        // Whatever lies there decides; a pointer or a broken link must not count as "no index".
        let index = std::fs::symlink_metadata(&path).is_ok().then(|| Index::read(&path)).transpose()?;
        let (counted, by) = match &index {
            Some(index) => (index.files(), path),
            None => (without_index(there.iter().map(String::as_str)), dir.to_owned()),
        };
        // Without an index, the files' own numbering tells whether one is missing.
        let parts: BTreeSet<String> = counted.iter().flat_map(|name| siblings(name, counted.len())).collect();
        let needed = if index.is_some() { &counted } else { &parts };
        let missing: Vec<&str> = needed.difference(&there).map(String::as_str).collect();
        if !missing.is_empty() {
            let problem = format!("the model's weights lack {}; fetch them into the folder", missing.join(", "));
            return Err(BaseError::Config { path: by, problem });
        }
        if counted.is_empty() {
            let file = "*.safetensors file".to_owned();
            return Err(BaseError::MissingFile { dir: dir.to_owned(), file });
        }
        let passed_over = there.difference(&counted).cloned().collect();
        Ok(Self { counted: counted.into_iter().collect(), passed_over, index })
    }
}

/// Of the files of a folder or repository without an index, those that are the model.
pub fn without_index<'n>(names: impl Iterator<Item = &'n str>) -> BTreeSet<String> {
    let other = |name: &str| name.starts_with("consolidated") || name.starts_with("adapter_");
    let all: BTreeSet<String> = names.filter(|name| is_weights(name) && !other(name)).map(str::to_owned).collect();
    if all.contains(USUAL_FILE) { [USUAL_FILE.to_owned()].into() } else { all }
}

/// All parts of the model that a file named like "model-00001-of-00003.safetensors" is one of.
/// Where it claims more parts than there are files, the first that is missing stands for the rest.
fn siblings(name: &str, files: usize) -> Vec<String> {
    let parts = || -> Option<(&str, usize)> {
        let (stem, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
        let (stem, number) = stem.rsplit_once('-')?;
        (number.len() == 5 && count.len() == 5).then_some((stem, count.parse().ok()?))
    };
    match parts() {
        Some((stem, count)) => {
            (1..=count.min(files + 1)).map(|n| format!("{stem}-{n:05}-of-{count:05}.safetensors")).collect()
        }
        None => Vec::new(),
    }
}
