//! Circles of imports among files, which cannot be understood one after the other: those that may
//! stay, and what is wrong with the others.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A circle that may stay, and why. docs/architecture.md names its files.
pub(super) struct Allowed {
    /// Paths in the workspace.
    pub(super) files: &'static [&'static str],
}

/// Where the circles that may stay are explained.
pub(super) const EXPLAINED_IN: &str = "docs/architecture.md";
/// How many may stay.
pub(super) const MOST: usize = 2;
/// The circles that may stay.
pub(super) const ALLOWED: [Allowed; 0] = [];

/// What is wrong with the circles of the workspace, given those
/// that may stay and the page that explains them.
pub(super) fn breaches(circles: &[Vec<PathBuf>], allowed: &[Allowed], page: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let shown = |files: &[PathBuf]| files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    for circle in circles {
        let fits =
            |allowed: &Allowed| circle.iter().all(|file| allowed.files.iter().any(|known| Path::new(known) == file));
        if !allowed.iter().any(fits) {
            breaches.push(format!("these files import each other in a circle: {}", shown(circle)));
        }
    }
    for allowed in allowed {
        let remains =
            circles.iter().any(|circle| allowed.files.iter().any(|file| circle.contains(&PathBuf::from(file))));
        if !remains {
            breaches.push(format!(
                "the circle of {} is gone: take it off the list in xtask/src/walls/circles.rs",
                allowed.files.join(", ")
            ));
        }
        for file in allowed.files.iter().filter(|file| !page.contains(**file)) {
            breaches.push(format!("{EXPLAINED_IN} does not name {file}, which is part of a circle that may stay"));
        }
    }
    if allowed.len() > MOST {
        breaches.push(format!("{} circles are listed as allowed, and {MOST} are the most", allowed.len()));
    }
    breaches
}

/// The page that explains the circles; empty where none may stay.
pub(super) fn page(workspace: &Path) -> Result<String> {
    if ALLOWED.is_empty() {
        return Ok(String::new());
    }
    std::fs::read_to_string(workspace.join(EXPLAINED_IN)).with_context(|| format!("cannot read {EXPLAINED_IN}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_must_be_listed_and_explained() {
        let circle = |files: &[&str]| files.iter().map(PathBuf::from).collect::<Vec<_>>();
        let found = [circle(&["c/src/a.rs", "c/src/b.rs"])];
        assert_eq!(breaches(&found, &[], "").len(), 1);
        let listed = || Allowed { files: &["c/src/a.rs", "c/src/b.rs"] };
        assert!(breaches(&found, &[listed()], "c/src/a.rs and c/src/b.rs").is_empty());
        assert!(breaches(&found, &[listed()], "c/src/a.rs")[0].contains("does not name c/src/b.rs"));
        assert!(breaches(&[], &[listed()], "c/src/a.rs c/src/b.rs")[0].contains("is gone"));
        let larger = [circle(&["c/src/a.rs", "c/src/b.rs", "c/src/d.rs"])];
        assert_eq!(breaches(&larger, &[listed()], "c/src/a.rs c/src/b.rs").len(), 1);
        assert!(
            breaches(&found, &[listed(), listed(), listed()], "c/src/a.rs c/src/b.rs")[0].contains("2 are the most")
        );
    }
}
