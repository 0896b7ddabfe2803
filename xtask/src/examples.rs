//! The run and client files of `examples/`, with the few values
//! changed that depend on where and how they are used.

use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::paths::Paths;

/// The methods that have a run file.
pub(crate) const METHODS: [&str; 4] = ["fed-sb", "ffa-lora", "flora", "fedit"];

/// The methods that have a run file with privacy.
pub(crate) const PRIVATE_METHODS: [&str; 3] = ["fed-sb", "ffa-lora", "fedit"];

/// What a demo changes in a run file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunChanges {
    /// Clients in the cohort; quorum is one less.
    pub(crate) clients: u32,
    /// Training rounds, when asked for.
    pub(crate) rounds: Option<u32>,
    /// Optimiser steps per round, when asked for.
    pub(crate) local_steps: Option<u32>,
    /// Examples of the warm-up, when asked for and the method has one.
    pub(crate) warm_up_examples: Option<u32>,
    /// With privacy for every example, at this epsilon.
    pub(crate) epsilon: Option<f64>,
}

/// `examples/runs/<method>.toml`, changed.
pub(crate) fn run_file(paths: &Paths, method: &str, changes: RunChanges) -> Result<String> {
    let folder = if changes.epsilon.is_some() { "examples/runs/private" } else { "examples/runs" };
    let mut run = read(&paths.workspace.join(folder).join(method).with_extension("toml"))?;
    if let Some(epsilon) = changes.epsilon {
        table(&mut run, "privacy")?.insert("epsilon".to_owned(), epsilon.into());
    }
    let rounds = table(&mut run, "rounds")?;
    rounds.insert("cohort".to_owned(), changes.clients.into());
    rounds.insert("quorum".to_owned(), changes.clients.saturating_sub(1).max(1).into());
    if let Some(count) = changes.rounds {
        rounds.insert("count".to_owned(), count.into());
    }
    if let Some(steps) = changes.local_steps {
        table(&mut run, "train")?.insert("local_steps".to_owned(), steps.into());
    }
    if let (Some(examples), "fed-sb", None) = (changes.warm_up_examples, method, changes.epsilon) {
        table(&mut run, "method")?.insert("warm_up_examples".to_owned(), examples.into());
    }
    toml::to_string(&run).context("a run file cannot be written")
}

/// `examples/clients/<domain>.toml` with the model and the data of this machine.
pub(crate) fn client_file(
    paths: &Paths,
    domain: &str,
    model: &Path,
    data: &str,
    max_eval: Option<u32>,
) -> Result<String> {
    let mut client = read(&paths.workspace.join("examples/clients").join(domain).with_extension("toml"))?;
    first(&mut client, "model")?.insert("path".to_owned(), model.to_string_lossy().into_owned().into());
    first(&mut client, "dataset")?.insert("path".to_owned(), data.into());
    if let Some(examples) = max_eval {
        table(&mut client, "limits")?.insert("max_eval_examples".to_owned(), examples.into());
    }
    toml::to_string(&client).context("a client file cannot be written")
}

fn read(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse().with_context(|| format!("{} is not TOML", path.display()))
}

fn table<'a>(file: &'a mut Table, name: &str) -> Result<&'a mut Table> {
    file.get_mut(name).and_then(Value::as_table_mut).with_context(|| format!("no table [{name}]"))
}

fn first<'a>(file: &'a mut Table, name: &str) -> Result<&'a mut Table> {
    let rows = file.get_mut(name).and_then(Value::as_array_mut);
    rows.and_then(|rows| rows.first_mut()?.as_table_mut()).with_context(|| format!("no table [[{name}]]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_and_domain_has_a_file_that_can_be_changed() {
        let paths = Paths::find(None).unwrap();
        let changes =
            RunChanges { clients: 2, rounds: Some(1), local_steps: Some(3), warm_up_examples: Some(64), epsilon: None };
        for method in METHODS {
            let run: Table = run_file(&paths, method, changes).unwrap().parse().unwrap();
            assert_eq!(run["method"]["id"].as_str(), Some(method));
            assert_eq!(run["method"]["rank"].as_integer(), Some(32), "methods are compared at equal rank");
            assert_eq!(run["rounds"]["quorum"].as_integer(), Some(1));
            assert_eq!(run["train"]["local_steps"].as_integer(), Some(3));
        }
        for method in PRIVATE_METHODS {
            let changes = RunChanges { epsilon: Some(1.0), ..changes };
            let run: Table = run_file(&paths, method, changes).unwrap().parse().unwrap();
            assert_eq!(run["method"]["id"].as_str(), Some(method));
            assert_eq!(run["privacy"]["epsilon"].as_float(), Some(1.0));
            assert!(run["method"].get("warm_up_examples").is_none());
        }
        for (domain, _) in crate::setup::DOMAINS {
            let text = client_file(&paths, domain, Path::new("/models/m"), "data/x.tsv", Some(10)).unwrap();
            let client: Table = text.parse().unwrap();
            assert_eq!(client["model"][0]["path"].as_str(), Some("/models/m"));
            assert_eq!(client["dataset"][0]["path"].as_str(), Some("data/x.tsv"));
        }
    }
}
