//! client.toml: what this machine has, how much it gives and what it accepts.

mod check;
mod error;
mod keys;

use std::path::{Path, PathBuf};

use rondo_data::Source;
use rondo_proto::groups::DEFAULT_MIN_GROUP;
use rondo_trainer_api::limits::Limits;
use serde::{Deserialize, Serialize};

pub use error::ConfigError;

/// A whole client.toml. Every table may be absent.
///
/// ```toml
/// [[model]]
/// path = "/srv/models/minilm-l6"      # a Hugging Face folder, or one .gguf file
///
/// [[model]]
/// hub = "owner/name"                  # a repository of a Hugging Face hub (feature `hub`)
/// revision = "0c1f..."                # a commit; a branch is looked up once
///
/// [[dataset]]
/// name = "reviews"                    # as run files call it
/// path = "data/reviews.tsv"           # relative to this file
/// text = "text"
/// label = "stars"
/// labels = { "1" = "negative", "5" = "positive" }
/// skip_labels = ["2", "3", "4"]
/// eval_fraction = 0.2
///
/// [[dataset]]
/// name = "instructions"
/// path = "data/dolly.jsonl"           # .jsonl, .json, .csv, .tsv or .parquet; docs/data.md has the shapes of rows
/// group = "category"
/// on_bad_row = "skip"
///
/// [limits]
/// max_rank = 64
/// device = "cpu"
///
/// [policy]
/// methods = ["fed-sb", "ffa-lora"]
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Config {
    /// Base models at hand.
    #[serde(default, rename = "model")]
    pub models: Vec<Model>,
    /// Data sets at hand.
    #[serde(default, rename = "dataset")]
    pub datasets: Vec<Source>,
    /// How much of this machine the daemon takes.
    #[serde(default)]
    pub limits: Limits,
    /// Which runs it takes part in.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// What may be released of each privacy domain, over all runs.
    #[serde(default)]
    pub privacy: Vec<PrivacyBudget>,
    /// How it talks to the coordinator.
    #[serde(default)]
    pub poll: Poll,
}

/// A base model; a `[[model]]` table with either `path` or `hub`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Model {
    /// Folder with config.json, *.safetensors and tokenizer.json, or a .gguf file. A relative path
    /// starts at the folder of client.toml. Empty where `hub` is given.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub path: PathBuf,
    /// Repository of a Hugging Face hub, "owner/name".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// Commit, tag or branch of the repository; absent = "main".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The one .gguf file of the repository that is the model;
    /// absent = config, tokenizer and .safetensors files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// The `[policy]` table: what a run must be like for this client to take part.
/// An empty list allows everything, 0 is no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyConfig {
    /// Who decides on a run that the rest of this table allows.
    #[serde(default)]
    pub approve: Approval,
    /// Whether results by group are reported, where a data set names groups.
    #[serde(default)]
    pub report_groups: bool,
    /// Fewest rows of a group that is reported; smaller ones join the group "other".
    #[serde(default = "default_min_group")]
    pub min_group: u32,
    /// Whether losses and accuracies are reported at all.
    #[serde(default = "default_report_metrics")]
    pub report_metrics: bool,
    /// Methods by id, for example "fed-sb".
    #[serde(default)]
    pub methods: Vec<String>,
    /// Task kinds, for example "classification".
    #[serde(default)]
    pub tasks: Vec<String>,
    /// Data sets of this client that runs may use.
    #[serde(default)]
    pub datasets: Vec<String>,
    /// Only runs with `privacy.unit = "example"`, which this client keeps by itself.
    #[serde(default)]
    pub require_privacy: bool,
    /// With `require_privacy`: runs with `privacy.unit = "client"` too,
    /// whose updates reach the coordinator without noise.
    #[serde(default)]
    pub accept_unit_client: bool,
    /// Largest epsilon of a run's privacy budget (dimensionless); absent = any. Runs without
    /// privacy are a matter of `require_privacy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_epsilon: Option<f64>,
    /// Largest delta of a run's privacy budget; absent = any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delta: Option<f64>,
    /// Most training rounds.
    #[serde(default)]
    pub max_rounds: u32,
    /// Most optimiser steps per round.
    #[serde(default)]
    pub max_local_steps: u32,
    /// Most examples per step.
    #[serde(default)]
    pub max_batch: u32,
    /// Longest inputs, in tokens.
    #[serde(default)]
    pub max_tokens: u32,
}

fn default_min_group() -> u32 {
    DEFAULT_MIN_GROUP
}
fn default_report_metrics() -> bool {
    true
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            approve: Approval::default(),
            report_groups: false,
            min_group: default_min_group(),
            report_metrics: default_report_metrics(),
            methods: Vec::new(),
            tasks: Vec::new(),
            datasets: Vec::new(),
            require_privacy: false,
            accept_unit_client: false,
            max_epsilon: None,
            max_delta: None,
            max_rounds: 0,
            max_local_steps: 0,
            max_batch: 0,
            max_tokens: 0,
        }
    }
}

/// Who decides on a run that the policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// The policy alone.
    #[default]
    Auto,
    /// A person, by `rondo-client approve` or `decline`.
    Ask,
}

/// A `[[privacy]]` table: the budget of one privacy domain. Runs that it cannot be held against,
/// all but those with `privacy.unit = "example"`, do not get the domain's data. A domain without
/// one is held to each run's own epsilon alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrivacyBudget {
    /// A data set's `privacy_domain`, or its name where it has none.
    pub domain: String,
    /// Most that all runs together may spend.
    pub epsilon: f64,
    /// The chance of failure that it holds at.
    pub delta: f64,
}

/// The `[poll]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Poll {
    /// Milliseconds between polls while there is nothing
    /// to do; the coordinator may ask for less often.
    #[serde(default = "default_interval_ms")]
    pub interval_ms: u64,
    /// Milliseconds between heartbeats while working.
    #[serde(default = "default_heartbeat_ms")]
    pub heartbeat_ms: u64,
    /// Milliseconds after which one call is given up and tried again.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_interval_ms() -> u64 {
    1_000
}
fn default_heartbeat_ms() -> u64 {
    3_000
}
fn default_timeout_ms() -> u64 {
    30_000
}

impl Default for Poll {
    fn default() -> Self {
        Self {
            interval_ms: default_interval_ms(),
            heartbeat_ms: default_heartbeat_ms(),
            timeout_ms: default_timeout_ms(),
        }
    }
}

impl Config {
    /// Reads and checks a file; relative paths in it start at its folder.
    ///
    /// # Errors
    /// The file cannot be read, or its text is refused as in [`Self::parse`].
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Io { file: file.to_owned(), source })?;
        Self::parse(&text, file)
    }

    /// Parses and checks a text that stands, or would stand, in `file`.
    ///
    /// # Errors
    /// The text is not TOML, a key is unknown or missing, or a value is not allowed.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            file: file.to_owned(),
            problem: error.to_string().trim_end().to_owned(),
        };
        // Keys first: a misspelt key often leaves a needed one out, and
        // the misspelling is the better thing to report.
        if let Some(unknown) = keys::unknown(&toml::from_str(text).map_err(syntax)?, file) {
            return Err(unknown);
        }
        let mut config: Self = toml::from_str(text).map_err(syntax)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        config.check(file)?;
        let models = config.models.iter_mut().filter(|model| model.hub.is_none()).map(|model| &mut model.path);
        for path in models.chain(config.datasets.iter_mut().map(|dataset| &mut dataset.path)) {
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    /// The data set of that name.
    pub fn dataset(&self, name: &str) -> Option<&Source> {
        self.datasets.iter().find(|source| source.name == name)
    }
}

#[cfg(test)]
mod tests;
