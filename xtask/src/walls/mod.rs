//! The walls between the crates and between their files: who may depend on whom, what may be
//! linked, which files may import each other, and how large a crate may be.

mod circles;
mod crates;
mod graph;
mod sources;
mod tokens;
mod trees;
mod uses;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::cargo::{cargo, metadata, step};
use crate::paths::Paths;
use crate::process;
use graph::Graph;

/// `cargo xtask walls`
#[derive(Args, Default)]
pub(crate) struct WallsArgs {
    /// Print every import inside a circle of files.
    #[arg(long)]
    circles: bool,
}

/// Checks the walls, prints each figure, and fails with all that is wrong.
pub(crate) fn run(paths: &Paths, args: &WallsArgs) -> Result<()> {
    step("walls between the crates");
    let metadata = metadata(paths)?;
    let packages = crates::packages(&metadata)?;
    let mut breaches = crates::breaches(&metadata)?;
    println!("{} crates, checked against the table of who may use whom", packages.len());
    breaches.extend(linked(paths, &metadata)?);
    breaches.extend(files(paths, packages, args)?);
    if !breaches.is_empty() {
        bail!("walls are broken:\n  {}", breaches.join("\n  "));
    }
    Ok(())
}

/// What is linked, by `cargo tree`.
fn linked(paths: &Paths, metadata: &Value) -> Result<Vec<String>> {
    let names = crates::packages(metadata)?.iter().map(crates::name).collect::<Result<Vec<_>>>()?;
    let mut breaches = Vec::new();
    for wall in trees::WALLS.iter().filter(|wall| names.contains(&wall.package)) {
        let tree = tree(paths, wall.package, "normal", wall.options)?;
        let found = trees::breaches(wall.package, &tree, wall.forbidden, wall.why);
        if found.is_empty() {
            let options: String = wall.options.iter().map(|option| format!(" {option}")).collect();
            let count = trees::crates(&tree).len();
            let forbidden = wall.forbidden.join(", ");
            println!("{}{options}: {count} crates in its tree, without {forbidden}", wall.package);
        }
        breaches.extend(found);
    }
    let members = crates::default_members(metadata)?;
    for package in &members {
        let tree = tree(paths, package, "normal,build,dev", &[])?;
        let why = "default members build without libtorch";
        breaches.extend(trees::breaches(package, &tree, trees::WITHOUT_LIBTORCH, why));
    }
    println!("{} default members, tests and all, without {}", members.len(), trees::WITHOUT_LIBTORCH.join(", "));
    Ok(breaches)
}

/// The crates below a package, one a line.
fn tree(paths: &Paths, package: &str, edges: &str, options: &[&str]) -> Result<String> {
    let mut command = cargo(paths);
    command.args(["tree", "--package", package, "--edges", edges, "--prefix", "none", "--format", "{p}", "--locked"]);
    process::output(command.args(options))
}

/// Circles of imports, and sizes.
fn files(paths: &Paths, packages: &[Value], args: &WallsArgs) -> Result<Vec<String>> {
    let mut sizes = Vec::new();
    let mut circles = Vec::new();
    for package in packages {
        let folder = folder(paths, package)?;
        let sources = sources::sources(&paths.workspace, &folder)?;
        sizes.push((crates::name(package)?.to_owned(), sources::lines(&sources)));
        let graph = Graph::of(&folder, &sources);
        for circle in graph.circles() {
            if args.circles {
                graph.within(&circle).iter().for_each(|line| println!("  {line}"));
                println!();
            }
            circles.push(circle);
        }
    }
    println!(
        "{} circles of imports among files; {} may stay, at most {}",
        circles.len(),
        circles::ALLOWED.len(),
        circles::MOST
    );
    let mut breaches = circles::breaches(&circles, &circles::ALLOWED, &circles::page(&paths.workspace)?);
    if let Some((name, share)) = sources::largest(&sizes) {
        let all: usize = sizes.iter().map(|(_, lines)| lines).sum();
        let share = 100.0 * share;
        let most = 100.0 * sources::LARGEST_SHARE;
        println!(
            "{all} lines in */src/**/*.rs; the largest crate, {name}, has {share:.1} % of them (less than {most:.0} %)"
        );
    }
    breaches.extend(sources::breaches(&sizes));
    Ok(breaches)
}

/// A package's folder in the workspace.
fn folder(paths: &Paths, package: &Value) -> Result<PathBuf> {
    let manifest = Path::new(package["manifest_path"].as_str().context("a package without a manifest_path")?);
    let folder = manifest.parent().context("a manifest without a folder")?;
    Ok(folder.strip_prefix(&paths.workspace).unwrap_or(folder).to_owned())
}
