//! Options that several offline commands share: which rows, and what to compute on.

use std::path::PathBuf;

use clap::Args;
use rondo_data::{Dataset, Format, Source, TaskSpec};
use rondo_proto::run_file::Task;
use rondo_trainer::LibtorchTrainer;
use rondo_trainer::device::DeviceChoice;
use rondo_trainer::error::TrainerError;

use super::error::OfflineError;

/// Which examples.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// The rows: a .jsonl, .json, .csv, .tsv or .parquet file
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// The data set's name in runs. It decides which rows are held out: the
    /// same file under another name is split otherwise
    #[arg(long, default_value = "data")]
    pub dataset: String,
    /// Format of the file [default: by its extension]
    #[arg(long, value_parser = ["jsonl", "json", "csv", "tsv", "parquet"])]
    pub format: Option<String>,
    /// Column (JSON key) of the text
    #[arg(long, default_value = "text")]
    pub text_column: String,
    /// Column (JSON key) of the label
    #[arg(long, default_value = "label")]
    pub label_column: String,
    /// Column names of a file without a header line
    #[arg(long, value_delimiter = ',')]
    pub columns: Option<Vec<String>>,
    /// What the file calls a label = what the model calls it; may be repeated
    #[arg(long, value_name = "FILE_LABEL=LABEL", value_parser = pair)]
    pub map_label: Vec<(String, String)>,
    /// Leave rows with this label (as the file has it) out; may be repeated
    #[arg(long, value_name = "LABEL")]
    pub skip_label: Vec<String>,
    /// A further key of a [[dataset]] table of client.toml (docs/data.md), for example
    /// group=category or on_bad_row=skip; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = option)]
    pub data_option: Vec<(String, toml::Value)>,
}

impl DataArgs {
    /// Reads the file.
    pub(super) fn load(&self, task: &Task, eval_fraction: f64) -> Result<Dataset, OfflineError> {
        Ok(Dataset::load(&self.source(eval_fraction)?, TaskSpec::of(task), 0)?)
    }

    /// The `[[dataset]]` table that these options make.
    fn source(&self, eval_fraction: f64) -> Result<Source, OfflineError> {
        let option = "--data-option";
        let mut table = toml::Table::new();
        for (key, value) in &self.data_option {
            if ["name", "path", "eval_fraction", "text", "label", "labels", "skip_labels"].contains(&key.as_str()) {
                let problem = format!("{key} has an option of its own");
                return Err(OfflineError::Value { option, problem });
            }
            table.insert(key.clone(), value.clone());
        }
        let mut text = |key: &str, value: &str| table.insert(key.to_owned(), toml::Value::String(value.to_owned()));
        text("name", &self.dataset);
        text("path", &self.data.to_string_lossy());
        let refused = |problem: String| OfflineError::Value { option, problem };
        let read: Result<Source, toml::de::Error> = table.try_into();
        let mut source = read.map_err(|error| refused(error.message().to_owned()))?;
        // Serde passes over keys that nobody knows; a table made of what it took shows them.
        let known = toml::Table::try_from(&source).map_err(|error| refused(error.to_string()))?;
        if let Some((key, _)) = self.data_option.iter().find(|(key, _)| !known.contains_key(key)) {
            return Err(refused(format!("{key:?} is no key of a [[dataset]] table; docs/data.md lists them")));
        }
        if !(0.0..=1.0).contains(&source.max_bad_rows) {
            return Err(refused(format!("max_bad_rows is {}; allowed is 0 to 1", source.max_bad_rows)));
        }
        source.path = self.data.clone();
        source.format = self.format.as_deref().map(|name| match name {
            "jsonl" => Format::Jsonl,
            "json" => Format::Json,
            "csv" => Format::Csv,
            "tsv" => Format::Tsv,
            _ => Format::Parquet,
        });
        source.text = self.text_column.clone();
        source.label = self.label_column.clone();
        source.columns = self.columns.clone();
        source.eval_fraction = eval_fraction;
        source.labels = self.map_label.iter().cloned().collect();
        source.skip_labels = self.skip_label.clone();
        Ok(source)
    }
}

/// What to compute on.
#[derive(Debug, Clone, Args)]
pub struct DeviceArgs {
    /// "cpu", "cuda:N" or "auto" (the first GPU when there is one, else the CPU)
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// CPU threads; 0 = one per core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

impl DeviceArgs {
    /// A trainer on it.
    pub(super) fn trainer(&self) -> Result<LibtorchTrainer, TrainerError> {
        let device: DeviceChoice = self.device.parse()?;
        LibtorchTrainer::new(device, (self.threads > 0).then_some(self.threads))
    }
}

/// A whole number from 1.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number >= 1).ok_or_else(|| "expected a whole number from 1".to_owned())
}

/// A share of the rows, above 0 and below 1.
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| 0.0 < *share && *share < 1.0);
    share.ok_or_else(|| "expected a number above 0 and below 1".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (from, to) = text.split_once('=').ok_or("expected FILE_LABEL=LABEL")?;
    Ok((from.to_owned(), to.to_owned()))
}

/// `KEY=VALUE`; a value that is no TOML is a word, which on a command line needs no quotes.
pub(super) fn option(text: &str) -> Result<(String, toml::Value), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok().and_then(|mut t| t.remove("value"));
    Ok((key.to_owned(), parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()))))
}
