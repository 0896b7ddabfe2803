//! The Rust files of every crate, and how many lines each crate has.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Of all lines in `*/src/**/*.rs`, a crate may have less than this share.
pub(super) const LARGEST_SHARE: f64 = 0.20;

/// A Rust file.
pub(super) struct Source {
    /// Its path in the workspace.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// The files in a crate's `src`, sorted by path.
pub(super) fn sources(workspace: &Path, folder: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut open = vec![folder.join("src")];
    while let Some(dir) = open.pop() {
        let absolute = workspace.join(&dir);
        for entry in std::fs::read_dir(&absolute).with_context(|| format!("cannot read {}", absolute.display()))? {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text =
                    std::fs::read_to_string(entry.path()).with_context(|| format!("cannot read {}", path.display()))?;
                sources.push(Source { path, text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

/// The lines of a crate's files.
pub(super) fn lines(sources: &[Source]) -> usize {
    sources.iter().map(|source| source.text.lines().count()).sum()
}

/// The largest crate and its share of all lines; `None` without any.
pub(super) fn largest(crates: &[(String, usize)]) -> Option<(&str, f64)> {
    let all: usize = crates.iter().map(|(_, lines)| lines).sum();
    let (name, lines) = crates.iter().max_by_key(|(_, lines)| lines)?;
    Some((name, *lines as f64 / all.max(1) as f64))
}

/// What is wrong with the sizes.
pub(super) fn breaches(crates: &[(String, usize)]) -> Vec<String> {
    let too_large = largest(crates).filter(|&(_, share)| share >= LARGEST_SHARE);
    let text = |(name, share): (&str, f64)| {
        format!(
            "{name} has {:.1} % of all lines, and a crate must have less than {:.0} %",
            100.0 * share,
            100.0 * LARGEST_SHARE
        )
    };
    too_large.map(text).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_crate_is_found_and_refused() {
        let crates = |sizes: &[usize]| -> Vec<(String, usize)> {
            sizes.iter().enumerate().map(|(at, &lines)| (format!("crate-{at}"), lines)).collect()
        };
        assert_eq!(largest(&crates(&[10, 30, 60])), Some(("crate-2", 0.6)));
        assert!(breaches(&crates(&[19, 19, 19, 19, 19, 5]))[..].is_empty());
        assert!(breaches(&crates(&[20, 16, 16, 16, 16, 16]))[0].starts_with("crate-0 has 20.0 %"));
    }

    #[test]
    fn files_are_found_in_folders_below() {
        let dir = tempfile::tempdir().unwrap();
        let src = dir.path().join("c/src/a");
        std::fs::create_dir_all(&src).unwrap();
        std::fs::write(dir.path().join("c/src/lib.rs"), "mod a;\n").unwrap();
        std::fs::write(src.join("mod.rs"), "//! One.\n//! Two.\n").unwrap();
        std::fs::write(src.join("notes.txt"), "no code\n").unwrap();
        let sources = sources(dir.path(), Path::new("c")).unwrap();
        let paths: Vec<String> = sources.iter().map(|source| source.path.display().to_string()).collect();
        assert_eq!((paths, lines(&sources)), (vec!["c/src/a/mod.rs".to_owned(), "c/src/lib.rs".to_owned()], 3));
    }
}
