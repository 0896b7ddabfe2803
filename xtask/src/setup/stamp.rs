//! Folders that appear whole or not at all, each with
//! a stamp that says by which recipe it was made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::packages::Package;

const STAMP: &str = ".rondo-setup";

/// What a folder is made of: the packages, and the version of the code that unpacks them.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// Packages, with their hashes.
    pub(crate) packages: &'static [Package],
    /// Raised when the unpacking changes what comes out.
    pub(crate) revision: u32,
}

impl Recipe {
    fn text(&self) -> String {
        let mut text = format!("revision {}\n", self.revision);
        for package in self.packages {
            text += &format!("{} {} sha256:{}\n", package.name, package.version, package.sha256);
        }
        text
    }

    /// Whether `target` was made by this very recipe.
    pub(crate) fn is_done(&self, target: &Path) -> bool {
        std::fs::read_to_string(target.join(STAMP)).is_ok_and(|text| text == self.text())
    }

    /// Fills a temporary folder beside `target` by
    /// `fill(downloads, new)`, then puts it in `target`'s place.
    pub(crate) fn make(&self, target: &Path, fill: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
        let parent = target.parent().context("a target has a parent")?;
        let name = target.file_name().context("a target has a name")?.to_string_lossy().into_owned();
        let work = Temporary::new(parent.join(format!(".{name}.new-{}", std::process::id())))?;
        let downloads = work.0.join("downloads");
        let new = work.0.join("new");
        let old = work.0.join("old");
        std::fs::create_dir_all(&downloads)?;
        std::fs::create_dir_all(&new)?;
        fill(&downloads, &new)?;
        std::fs::write(new.join(STAMP), self.text())?;
        if target.exists() {
            std::fs::rename(target, &old).with_context(|| format!("cannot replace {}", target.display()))?;
        }
        std::fs::rename(&new, target).with_context(|| format!("cannot make {}", target.display()))
    }
}

/// A folder that is removed with all it holds, the
/// downloads among it, whether or not the work succeeded.
struct Temporary(PathBuf);

impl Temporary {
    fn new(path: PathBuf) -> Result<Self> {
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("warning: cannot remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packages::{MINILM, VADER};
    use super::*;

    #[test]
    fn a_folder_appears_whole_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("data");
        let recipe = Recipe { packages: &[VADER], revision: 1 };
        assert!(!recipe.is_done(&target));
        recipe.make(&target, |_, new| Ok(std::fs::write(new.join("file"), "1")?)).unwrap();
        assert!(recipe.is_done(&target));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");

        let newer = Recipe { packages: &[VADER, MINILM], revision: 1 };
        assert!(!newer.is_done(&target), "another recipe makes it again");
        newer.make(&target, |_, new| Ok(std::fs::write(new.join("file"), "2")?)).unwrap();
        assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "2");
    }

    #[test]
    fn a_failure_leaves_the_old_folder_and_no_rubbish() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("data");
        let recipe = Recipe { packages: &[VADER], revision: 1 };
        recipe.make(&target, |_, new| Ok(std::fs::write(new.join("file"), "1")?)).unwrap();
        let newer = Recipe { packages: &[VADER], revision: 2 };
        assert!(newer.make(&target, |_, _| anyhow::bail!("no network")).is_err());
        assert!(recipe.is_done(&target));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
