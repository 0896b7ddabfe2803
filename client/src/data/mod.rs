//! The client's own examples: read from JSONL, CSV or TSV files, mapped to a run's labels, split once and for all into
//! training and held-out examples.

pub mod batches;
mod csv;
mod error;
mod jsonl;
mod split;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use error::DataError;

/// One row of a data set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Example {
    /// Where the split puts it: the first 8 bytes of BLAKE3(data set name, 0, text). Rows are kept in this order.
    key: u64,
    /// What the row says.
    pub content: Content,
    /// The group that evaluations report it under, where the data set names groups.
    pub group: Option<Box<str>>,
}

/// What a row says, by the kind of task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// A text and its class.
    Labelled {
        /// As the file has it.
        text: Box<str>,
        /// Index into the run's labels.
        label: u32,
    },
    /// A text to learn as a whole.
    Text(Box<str>),
    /// What is given, and what the model should say after it.
    Completion {
        /// Given.
        prompt: Box<str>,
        /// To be said.
        completion: Box<str>,
    },
    /// A conversation, to be laid out by the model's chat template.
    Chat(Vec<Message>),
    /// A question with options.
    Choice {
        /// The question, up to where an option follows.
        prompt: Box<str>,
        /// The options.
        options: Vec<Box<str>>,
        /// Index of the right one.
        answer: u32,
    },
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Box<str>,
}

/// Who speaks in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Example {
    /// A labelled text; of other content the text that stands first.
    pub fn text(&self) -> &str {
        match &self.content {
            Content::Labelled { text, .. } | Content::Text(text) => text,
            Content::Completion { prompt, .. } | Content::Choice { prompt, .. } => prompt,
            Content::Chat(messages) => messages.first().map_or("", |message| &message.content),
        }
    }

    /// The class of a labelled text; 0 for other content.
    pub fn label(&self) -> u32 {
        match self.content {
            Content::Labelled { label, .. } => label,
            _ => 0,
        }
    }
}

/// Where a data set lies on this machine and how to read it; a `[[dataset]]` table of client.toml.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The name that run files use (`task.dataset`).
    pub name: String,
    /// The file. A relative path starts at the folder of client.toml.
    pub path: PathBuf,
    /// "jsonl", "csv" or "tsv"; absent = by the file's extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Column (JSON key) that holds the text.
    #[serde(default = "default_text")]
    pub text: String,
    /// Column (JSON key) that holds the label.
    #[serde(default = "default_label")]
    pub label: String,
    /// Column names of a CSV or TSV file without a header line; absent = the first line names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Whether `"` quotes fields; absent = yes for CSV, no for TSV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotes: Option<bool>,
    /// Share of the rows held out for evaluation, from 0 (none) to below 1. A row's side depends on its text alone.
    #[serde(default = "default_eval_fraction")]
    pub eval_fraction: f64,
    /// What the file calls a label = what the run calls it. Labels that are not listed stand for themselves.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Rows with one of these labels (as the file has them) are left out.
    #[serde(default)]
    pub skip_labels: Vec<String>,
}

fn default_text() -> String {
    "text".to_owned()
}
fn default_label() -> String {
    "label".to_owned()
}
fn default_eval_fraction() -> f64 {
    0.1
}

impl Source {
    /// A source with every option at its default.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            format: None,
            text: default_text(),
            label: default_label(),
            columns: None,
            quotes: None,
            eval_fraction: default_eval_fraction(),
            labels: BTreeMap::new(),
            skip_labels: Vec::new(),
        }
    }

    /// The format said, or the one that the extension says.
    pub fn format(&self) -> Result<Format, DataError> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        match self.path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "ndjson") => Ok(Format::Jsonl),
            Some("csv") => Ok(Format::Csv),
            Some("tsv" | "tab") => Ok(Format::Tsv),
            _ => Err(DataError::UnknownFormat { file: self.path.clone() }),
        }
    }
}

/// File formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated, fields quoted with `"` where needed (RFC 4180).
    Csv,
    /// Tab-separated, one row per line, `"` an ordinary character unless `quotes = true`.
    Tsv,
}

/// One row as a reader finds it.
struct Row<'a> {
    /// From 1; the line on which the row starts.
    line: u64,
    text: &'a str,
    label: &'a str,
}

/// A data set in memory, read against one run's labels. Each text is held once.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    name: String,
    labels: Vec<String>,
    /// In key order, so that the held-out rows come first and the rest follows.
    examples: Vec<Example>,
    held_out: usize,
}

impl Dataset {
    /// Reads a source against a run's labels. The result does not depend on the order of the rows.
    ///
    /// # Errors
    /// The first row that cannot be used, with its file, line and column; a file without rows; a split that leaves
    /// nothing to train on.
    pub fn load(source: &Source, labels: &[String]) -> Result<Self, DataError> {
        let mut examples = Vec::new();
        let mut take = |row: Row<'_>| -> Result<(), DataError> {
            if source.skip_labels.iter().any(|skipped| skipped == row.label) {
                return Ok(());
            }
            let named = source.labels.get(row.label).map_or(row.label, String::as_str);
            let Some(label) = labels.iter().position(|known| known == named) else {
                let mapped = if named == row.label { String::new() } else { format!(" (mapped to {named:?})") };
                return Err(DataError::UnknownLabel {
                    file: source.path.clone(),
                    line: row.line,
                    column: source.label.clone(),
                    label: format!("{:?}{mapped}", row.label),
                    known: labels.to_vec(),
                });
            };
            let key = split::key(&source.name, row.text);
            let content = Content::Labelled { text: row.text.into(), label: label as u32 };
            examples.push(Example { key, content, group: None });
            Ok(())
        };
        match source.format()? {
            Format::Jsonl => jsonl::read(source, &mut take)?,
            format @ (Format::Csv | Format::Tsv) => csv::read(source, format, &mut take)?,
        }
        if examples.is_empty() {
            return Err(DataError::NoRows { file: source.path.clone() });
        }
        examples.sort_unstable();
        let held_out = split::held_out(&examples, source.eval_fraction);
        Ok(Self { name: source.name.clone(), labels: labels.to_vec(), examples, held_out })
    }

    /// Makes a data set of texts in memory, each with its index into `labels`, and splits it as [`Dataset::load`] does.
    pub fn of(
        name: &str,
        labels: &[String],
        rows: impl IntoIterator<Item = (String, u32)>,
        eval_fraction: f64,
    ) -> Self {
        let mut examples: Vec<Example> = rows
            .into_iter()
            .map(|(text, label)| Example {
                key: split::key(name, &text),
                content: Content::Labelled { text: text.into(), label },
                group: None,
            })
            .collect();
        examples.sort_unstable();
        let held_out = split::held_out(&examples, eval_fraction);
        Self { name: name.to_owned(), labels: labels.to_vec(), examples, held_out }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The run's labels, in the order of their indices.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Examples to train on.
    pub fn train(&self) -> &[Example] {
        &self.examples[self.held_out..]
    }

    /// Examples to evaluate on; never trained on. Any number of the first ones is a random sample of them.
    pub fn held_out(&self) -> &[Example] {
        &self.examples[..self.held_out]
    }
}

#[cfg(test)]
mod tests;
