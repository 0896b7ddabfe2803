//! Circles of imports among the files of a crate: files
//! that cannot be understood one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::sources::Source;
use super::uses::{Import, Uses};

/// The files of one crate and who imports whom, by path in the workspace.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) edges: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
}

/// A file as a module.
struct Module {
    /// `crate` is the empty path.
    path: Vec<String>,
    uses: Uses,
}

impl Graph {
    /// Reads a crate's files; `folder` is the crate's, in the workspace.
    pub(super) fn of(folder: &Path, sources: &[Source]) -> Self {
        let src = folder.join("src");
        let root = if sources.iter().any(|source| source.path == src.join("lib.rs")) { "lib.rs" } else { "main.rs" };
        let mut files: BTreeMap<Vec<String>, PathBuf> = BTreeMap::new();
        let mut modules: BTreeMap<PathBuf, Module> = BTreeMap::new();
        let mut for_tests: BTreeSet<PathBuf> = BTreeSet::new();
        for source in sources {
            let Some(path) = source.path.strip_prefix(&src).ok().and_then(|inside| module_path(inside, root)) else {
                continue;
            };
            let uses = Uses::of(&source.text);
            for name in &uses.test_modules {
                for_tests.extend(places(&source.path, root, name));
            }
            files.insert(path.clone(), source.path.clone());
            modules.insert(source.path.clone(), Module { path, uses });
        }
        let is_for_tests = |file: &PathBuf| {
            let folder = file.with_extension("");
            for_tests.iter().any(|test| test == file || folder.starts_with(test.with_extension("")))
        };
        files.retain(|_, file| !is_for_tests(file));
        let mut graph = Self::default();
        for (file, module) in modules.iter().filter(|(file, _)| !is_for_tests(file)) {
            let targets = graph.edges.entry(file.clone()).or_default();
            for import in &module.uses.imports {
                let Some(path) = absolute(import, &module.path, &files) else { continue };
                let is_reexport_of_own =
                    import.is_public && path.len() > module.path.len() && path.starts_with(&module.path);
                let target = resolve(&path, &files, &modules, 0);
                targets.extend(target.filter(|target| target != file && !is_reexport_of_own));
            }
        }
        graph
    }

    /// The groups of files that import each other, directly or through others.
    pub(super) fn circles(&self) -> Vec<Vec<PathBuf>> {
        let reach: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> =
            self.edges.keys().map(|file| (file, self.reachable(file))).collect();
        let mut seen: BTreeSet<&PathBuf> = BTreeSet::new();
        let mut circles = Vec::new();
        for (file, reached) in &reach {
            if seen.contains(file) || !reached.contains(file) {
                continue;
            }
            let circle: Vec<&PathBuf> = reached
                .iter()
                .copied()
                .filter(|other| reach.get(other).is_some_and(|back| back.contains(file)))
                .collect();
            seen.extend(&circle);
            circles.push(circle.into_iter().cloned().collect());
        }
        circles
    }

    /// What a file imports, and what that imports, and so on.
    /// The file itself only where a circle leads back.
    fn reachable(&self, file: &PathBuf) -> BTreeSet<&PathBuf> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&PathBuf> = self.edges.get(file).into_iter().flatten().collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(self.edges.get(next).into_iter().flatten());
            }
        }
        reached
    }

    /// The imports inside a circle, one a line.
    pub(super) fn within(&self, circle: &[PathBuf]) -> Vec<String> {
        let inside =
            |file: &PathBuf| self.edges.get(file).into_iter().flatten().filter(|target| circle.contains(target));
        circle
            .iter()
            .flat_map(|file| inside(file).map(move |target| format!("{} -> {}", file.display(), target.display())))
            .collect()
    }
}

/// The module of a file in `src`: `a/b.rs` and `a/b/mod.rs`
/// are `a::b`. Binaries beside a library are none.
fn module_path(inside: &Path, root: &str) -> Option<Vec<String>> {
    let mut path: Vec<String> =
        inside.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if inside == Path::new(root) {
        return Some(Vec::new());
    }
    if inside == Path::new("main.rs") || inside.starts_with("bin") {
        return None;
    }
    if path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    Some(path)
}

/// Where the module `name` of a file may lie; `name` may be a file name beside it.
fn places(file: &Path, root: &str, name: &str) -> Vec<PathBuf> {
    let beside = file.parent().unwrap_or(Path::new(""));
    if name.ends_with(".rs") {
        return vec![beside.join(name)];
    }
    let owns_folder = file.ends_with("mod.rs") || file.ends_with(root);
    let folder = if owns_folder { beside.to_owned() } else { file.with_extension("") };
    vec![folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")]
}

/// An import's path from the crate's root; `None` for another crate's.
fn absolute(import: &Import, module: &[String], files: &BTreeMap<Vec<String>, PathBuf>) -> Option<Vec<String>> {
    let mut here = module.to_vec();
    here.extend(import.within.iter().cloned());
    let mut rest = import.path.as_slice();
    match rest.first()?.as_str() {
        "crate" => {
            here.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                here.pop()?;
                rest = &rest[1..];
            }
        }
        child => {
            let mut own = here.clone();
            own.push(child.to_owned());
            files.get(&own)?;
        }
    }
    here.extend(rest.iter().filter(|part| *part != "self" && *part != "*").cloned());
    Some(here)
}

/// The file that a path leads to: that of its module, or where the
/// module re-exports the name, that of the name.
fn resolve(
    path: &[String],
    files: &BTreeMap<Vec<String>, PathBuf>,
    modules: &BTreeMap<PathBuf, Module>,
    followed: usize,
) -> Option<PathBuf> {
    let length = (0..=path.len()).rev().find(|&length| files.contains_key(&path[..length]))?;
    let file = files.get(&path[..length])?;
    let Some(name) = path.get(length) else { return Some(file.clone()) };
    let module = modules.get(file)?;
    let reexport =
        module.uses.imports.iter().find(|import| import.is_public && import.within.is_empty() && import.name == *name);
    let target = reexport.filter(|_| followed < 8).and_then(|import| absolute(import, &module.path, files));
    match target {
        Some(target) => resolve(&target, files, modules, followed + 1),
        None => Some(file.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Graph {
        let source =
            |&(path, text): &(&str, &str)| Source { path: PathBuf::from("c/src").join(path), text: text.to_owned() };
        Graph::of(Path::new("c"), &files.iter().map(source).collect::<Vec<_>>())
    }

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let joined = |circle: &Vec<PathBuf>| {
            circle
                .iter()
                .map(|file| file.strip_prefix("c/src").unwrap().display().to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        graph(files).circles().iter().map(joined).collect()
    }

    #[test]
    fn a_circle_is_found_and_a_chain_is_none() {
        let chain = [("lib.rs", "mod a; mod b; mod c;"), ("a.rs", "use crate::b::B;"), ("b.rs", "use crate::c::C;")];
        assert!(circles(&[&chain[..], &[("c.rs", "")]].concat()).is_empty());
        assert_eq!(circles(&[&chain[..], &[("c.rs", "use crate::{a::A, b};")]].concat()), ["a.rs b.rs c.rs"]);
    }

    #[test]
    fn two_circles_are_two() {
        let files = [
            ("a.rs", "use crate::b;"),
            ("b.rs", "use crate::a; use crate::d;"),
            ("d.rs", "use crate::e;"),
            ("e.rs", "use crate::d;"),
        ];
        assert_eq!(circles(&[&[("lib.rs", "")], &files[..]].concat()), ["a.rs b.rs", "d.rs e.rs"]);
    }

    #[test]
    fn super_self_and_children_are_followed() {
        let files = [
            ("lib.rs", ""),
            ("a/mod.rs", "mod b; mod c; use b::B;"),
            ("a/b.rs", "use super::c::C;"),
            ("a/c.rs", "use super::D;"),
        ];
        assert_eq!(circles(&files), ["a/b.rs a/c.rs a/mod.rs"]);
        // In the other spelling of a module with children.
        let files = [("lib.rs", ""), ("a.rs", "mod b; use self::b::B;"), ("a/b.rs", "use super::D;")];
        assert_eq!(circles(&files), ["a/b.rs a.rs"]);
    }

    #[test]
    fn a_re_export_of_a_child_is_no_import_and_leads_to_the_child() {
        let files = [
            ("lib.rs", "mod a; pub use a::A;"),
            ("a/mod.rs", "mod b; mod e; pub use b::A; pub use e::E;"),
            ("a/b.rs", "use super::E;"),
            ("a/e.rs", ""),
        ];
        assert!(circles(&files).is_empty());
        let files = [
            ("lib.rs", "mod a; pub use a::A;"),
            ("a/mod.rs", "mod b; mod e; pub use b::A; pub use e::E;"),
            ("a/b.rs", "use crate::a::E;"),
            ("a/e.rs", "use crate::A;"),
        ];
        assert_eq!(circles(&files), ["a/b.rs a/e.rs"]);
    }

    #[test]
    fn tests_and_other_crates_do_not_count() {
        let files = [
            ("lib.rs", ""),
            ("a.rs", "use crate::b::B; use std::fs; use c::Other; #[cfg(test)] mod tests;"),
            ("a/tests.rs", "use crate::b::B;"),
            ("b.rs", "#[cfg(test)] mod tests { use crate::a::A; } #[cfg(test)] #[path = \"b_tests.rs\"] mod more;"),
            ("b_tests.rs", "use crate::a::A;"),
        ];
        assert!(circles(&files).is_empty());
        assert_eq!(graph(&files).edges.len(), 3);
    }
}
