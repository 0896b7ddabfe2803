//! Where things lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The workspace and the folder for everything that is fetched or made.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// Root of the workspace.
    pub(crate) workspace: PathBuf,
    /// `.rondo`, or what `--root` names.
    pub(crate) root: PathBuf,
}

impl Paths {
    /// Finds the workspace from where this crate was built.
    pub(crate) fn find(root: Option<PathBuf>) -> Result<Self> {
        let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = crate_dir.parent().context("xtask has no parent folder")?.to_path_buf();
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
        self.models().join(crate::setup::MODEL)
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
