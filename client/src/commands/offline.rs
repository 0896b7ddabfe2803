//! What the offline commands share: data options, the device, errors, a progress bar.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rondo_methods::MethodError;
use rondo_proto::base::BaseError;
use rondo_proto::run_file::{RunFileError, Task};

use crate::data::{DataError, Dataset, Format, Source, Wants};
use crate::memory::{OutlineError, TooLarge};
use crate::trainer::LibtorchTrainer;
use crate::trainer::device::DeviceChoice;
use crate::trainer::error::TrainerError;
use crate::work::{Progress, WorkError};

/// Which examples.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// The rows: a .jsonl, .json, .csv, .tsv or .parquet file
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// The data set's name in runs. It decides which rows are held out: the same file under another name is split
    /// otherwise
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
    /// A further key of a [[dataset]] table of client.toml (docs/data.md), for example group=category or
    /// on_bad_row=skip; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = option)]
    pub data_option: Vec<(String, toml::Value)>,
}

impl DataArgs {
    /// Reads the file.
    pub(super) fn load(&self, task: &Task, eval_fraction: f64) -> Result<Dataset, OfflineError> {
        Ok(Dataset::load(&self.source(eval_fraction)?, Wants::of(task), 0)?)
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

/// Why an offline command failed.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The base model's folder.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The options do not make a run.
    #[error(transparent)]
    Run(#[from] RunFileError),
    /// An option's value.
    #[error("{option} {problem}")]
    Value {
        /// The option.
        option: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The method, its options or the adapter's folder.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// The data file.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device or the model.
    #[error(transparent)]
    Trainer(#[from] TrainerError),
    /// Training or evaluating.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The adapter's folder holds no head and the labels were not said.
    #[error("{} holds no classifier head (rondo_head.safetensors); only adapters that Rondo exported can be evaluated", .dir.display())]
    NoHead {
        /// The folder.
        dir: PathBuf,
    },
    /// A conversation without the template that lays it out.
    #[error("the model in {} {lacks}; {mend}", .model.display())]
    NoChatTemplate {
        /// The base model.
        model: PathBuf,
        /// What is wrong with its template.
        lacks: String,
        /// What to do instead.
        mend: &'static str,
    },
    /// The folder is no adapter.
    #[error("no adapter in {}: adapter_config.json is not there; name a folder that `rondo-client train` or `rondo adapter export` wrote, or leave --adapter out for the bare base", .dir.display())]
    NoAdapter {
        /// The folder.
        dir: PathBuf,
    },
    /// The adapter does not fit the model.
    #[error("adapter {} does not fit the model in {}; it was made for {made_for:?}, name that one with --model: {source}", .dir.display(), .model.display())]
    AnotherBase {
        /// The adapter's folder.
        dir: PathBuf,
        /// The base model.
        model: PathBuf,
        /// The base model that the adapter names.
        made_for: String,
        /// What does not fit.
        source: Box<TrainerError>,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The model's sizes.
    #[error(transparent)]
    Outline(#[from] OutlineError),
    /// A step does not fit.
    #[error(transparent)]
    Memory(#[from] Box<TooLarge>),
    /// The process that takes a measured step.
    #[error("the measured step failed: {problem}")]
    Measure {
        /// How.
        problem: String,
    },
    /// Standard output.
    #[error("output: {0}")]
    Output(#[from] std::io::Error),
}

/// A progress bar on standard error, hidden where that is no terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(what: &'static str) -> Self {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target).with_prefix(what);
        if let Ok(style) = ProgressStyle::with_template("{prefix:10} {wide_bar} {pos}/{len} {msg} {eta}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// A line for work that has no steps to count.
    pub(super) fn waiting(what: &'static str, message: &'static str) -> Self {
        let bar = Self::new(what);
        if let Ok(style) = ProgressStyle::with_template("{prefix:10} {spinner} {msg} {elapsed}") {
            bar.0.set_style(style);
        }
        bar.0.set_message(message);
        bar
    }

    /// Shows where the work stands.
    pub(super) fn show(&mut self, progress: Progress) -> ControlFlow<()> {
        self.0.set_length(progress.steps.into());
        self.0.set_position(progress.step.into());
        if progress.loss > 0.0 {
            self.0.set_message(format!("loss {:.3}", progress.loss));
        }
        ControlFlow::Continue(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
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
