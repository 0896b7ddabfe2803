//! Where things lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Name of the demo's base model, and of its folder.
pub(crate) const MODEL: &str = "minilm-l6";

/// The workspace and the folder for everything that is fetched or made.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// Root of the workspace.
    pub(crate) workspace: PathBuf,
    /// `.rondo`, or what `--root` names.
    pub(crate) root: PathBuf,
}

impl Paths {
    /// Finds the workspace that the current folder lies in; outside
    /// of any it is the one this program was built in.
    pub(crate) fn find(root: Option<PathBuf>) -> Result<Self> {
        let here = std::env::current_dir().context("the current folder is gone")?;
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent folder")?;
        let workspace = workspace_around(&here).unwrap_or(built_in).to_path_buf();
        let root = match root {
            Some(dir) => std::path::absolute(&dir).with_context(|| format!("--root {}", dir.display()))?,
            None => workspace.join(".rondo"),
        };
        Ok(Self { workspace, root })
    }

    /// libtorch in the layout that torch-sys expects: `include/` and `lib/`.
    pub(crate) fn libtorch(&self) -> PathBuf {
        self.root.join("libtorch")
    }

    /// Folder of model folders.
    pub(crate) fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// The demo's encoder.
    pub(crate) fn demo_model(&self) -> PathBuf {
        self.models().join(MODEL)
    }

    /// The demo's texts, one file per domain.
    pub(crate) fn demo_data(&self) -> PathBuf {
        self.root.join("data").join("hutto")
    }

    /// Python environment of the interop check.
    pub(crate) fn venv(&self) -> PathBuf {
        self.root.join("venv")
    }

    /// Folder of demo folders.
    pub(crate) fn demos(&self) -> PathBuf {
        self.root.join("demo")
    }

    /// A path as a person would type it in the workspace.
    pub(crate) fn show(&self, path: &Path) -> String {
        path.strip_prefix(&self.workspace).unwrap_or(path).display().to_string()
    }
}

/// The nearest folder, from `dir` upward, with a workspace's manifest and this crate.
fn workspace_around(dir: &Path) -> Option<&Path> {
    let is_workspace = |dir: &&Path| {
        let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
        manifest.lines().any(|line| line.trim() == "[workspace]") && dir.join("xtask/Cargo.toml").is_file()
    };
    dir.ancestors().find(is_workspace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_the_one_around_the_current_folder() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = dir.path().join("other");
        let inner = workspace.join("dp/src");
        for folder in [&inner, &workspace.join("xtask")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(workspace.join("Cargo.toml"), "[workspace]\nmembers = []\n").unwrap();
        // Another project's crate, and one whose workspace has no xtask, are passed over.
        std::fs::write(workspace.join("dp/Cargo.toml"), "[package]\nname = \"dp\"\n").unwrap();
        assert_eq!(workspace_around(&inner), None);
        std::fs::write(workspace.join("xtask/Cargo.toml"), "[package]\n").unwrap();
        assert_eq!(workspace_around(&inner), Some(workspace.as_path()));
        assert_eq!(workspace_around(&workspace), Some(workspace.as_path()));
        assert_eq!(workspace_around(dir.path()), None);
    }
}
