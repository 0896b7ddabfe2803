//! Every file in `examples/` is what it says it is.
#![allow(clippy::unwrap_used)] // A test, its helpers too.

use std::path::{Path, PathBuf};

use rondo_benches::{METHODS, Round, encoder_shapes, workspace};
use rondo_client::config::Config;
use rondo_methods::{Job, Registry};
use rondo_proto::run_file::RunFile;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = workspace().join("examples").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

fn check_run(path: &Path) -> RunFile {
    let run = RunFile::parse(&std::fs::read_to_string(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Job::new(&Registry::builtin(), &run, &encoder_shapes())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    run
}

fn check_client(path: &Path) -> Config {
    Config::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_run_file_is_a_run_on_the_demos_encoder() {
    let files = files("runs");
    for path in &files {
        let run = check_run(path);
        assert_eq!(path.file_stem().unwrap().to_str(), Some(run.method.id.as_str()), "named after its method");
    }
    assert_eq!(files.len(), METHODS.len(), "one per method");
}

#[test]
fn every_private_run_file_promises_privacy_per_example() {
    for path in files("runs/private") {
        let run = check_run(&path);
        assert_eq!(path.file_stem().unwrap().to_str(), Some(run.method.id.as_str()), "named after its method");
        assert_eq!(run.privacy.unwrap().unit, "example", "{}", path.display());
    }
}

#[test]
fn first_runs_fit_their_clients() {
    for folder in ["reviews", "instructions"] {
        let text = std::fs::read_to_string(workspace().join("examples").join(folder).join("run.toml")).unwrap();
        let run = RunFile::parse(&text).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let client = check_client(&workspace().join("examples").join(folder).join("client.toml"));
        let source = client.dataset(&run.task.dataset).unwrap_or_else(|| panic!("{folder}: no such data set"));
        assert!(source.path.is_file(), "{}", source.path.display());
    }
}

#[test]
fn every_client_file_offers_the_data_set_of_the_runs() {
    for path in files("clients") {
        assert!(check_client(&path).dataset("reviews").is_some(), "{}", path.display());
    }
}

#[test]
fn the_compose_files_fit_each_other() {
    for path in files("compose") {
        match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("client") => assert!(check_client(&path).dataset("reviews").is_some()),
            Some("run") => assert_eq!(check_run(&path).task.dataset, "reviews"),
            _ => panic!("{}: neither client.toml nor run.toml", path.display()),
        }
    }
}

#[test]
fn what_the_benches_aggregate_is_a_round() {
    for method in METHODS {
        let error = Round::of(method, 3).unwrap().aggregate().unwrap().error.unwrap();
        assert_eq!(method == "fedit", error > 1e-6, "{method}: {error:e}");
    }
}
