//! A `[[dataset]]` table of client.toml: where a data set lies and how its columns are to be read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::column::Column;
use super::{DataError, RowFormat};

/// Where a data set lies on this machine and how to read it; a `[[dataset]]` table of client.toml.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The name that run files use (`task.dataset`).
    pub name: String,
    /// The file. A relative path starts at the folder of client.toml.
    pub path: PathBuf,
    /// Absent = by the file's extension (and whether JSON starts with a list).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// What a row holds; "auto" = by its columns.
    #[serde(default)]
    pub rows: RowFormat,
    /// Column (JSON key) that holds the text.
    #[serde(default = "default_text")]
    pub text: String,
    /// Column (JSON key) that holds the label.
    #[serde(default = "default_label")]
    pub label: String,
    /// The other columns.
    #[serde(flatten)]
    pub mapping: Mapping,
    /// Column names of a CSV or TSV file without a header line; absent = the first line names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Whether `"` quotes fields; absent = yes for CSV, no for TSV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotes: Option<bool>,
    /// Share of the rows held out for evaluation, from 0 (none) to below 1. A row's side depends on
    /// its text alone.
    #[serde(default = "default_eval_fraction")]
    pub eval_fraction: f64,
    /// What the file calls a label (or an answer) = what the run calls it. Those not listed stand
    /// for themselves.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Rows with one of these labels (as the file has them) are left out.
    #[serde(default)]
    pub skip_labels: Vec<String>,
    /// Whose data these are, as far as privacy is concerned: data sets that share records share a
    /// domain, and what runs release of them adds up there. Absent = the data set's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy_domain: Option<String>,
    /// No person's privacy depends on it: a run with privacy may see what is measured on it.
    #[serde(default)]
    pub public: bool,
    /// What happens when a row cannot be used.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// With `on_bad_row = "skip"`: the largest share of rows that may be skipped, from 0 to 1.
    #[serde(default = "default_max_bad_rows")]
    pub max_bad_rows: f64,
}

/// Names of columns by what they hold; absent = the row format's own names. A name may be a path
/// into nested values (`choices.text`, `turns.0`), or a text with columns in braces
/// (`"{premise} {hypothesis}"`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Mapping {
    /// What stands before a completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What the model should say after a prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<String>,
    /// What an instruction row asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// What an instruction works on; may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// What the model should say to an instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// A list of turns with `role` and `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<String>,
    /// A question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// A question's options: one column that holds a list, or one column per option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Columns>,
    /// The options' own labels, which answers name; a column that holds a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice_labels: Option<String>,
    /// Options that are the same for every row, in place of `choices`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<String>>,
    /// A question's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The answer is what stands behind the last of these words in its column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_after: Option<String>,
    /// The group that evaluations report a row under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// One column, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Columns {
    /// One.
    One(String),
    /// Several, in this order.
    Many(Vec<String>),
}

/// What happens when a row cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadRow {
    /// The data set is refused, with the file and the line.
    #[default]
    Stop,
    /// It is left out and counted.
    Skip,
    /// It counts as a row and adds nothing, however many there are. Every run with privacy uses
    /// this: neither a refusal nor the number of rows may show what a single row holds. It cannot
    /// be written in client.toml.
    #[serde(skip)]
    Keep,
}

/// File formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// One JSON list of objects.
    Json,
    /// Comma-separated, fields quoted with `"` where needed (RFC 4180).
    Csv,
    /// Tab-separated, one row per line, `"` an ordinary character unless `quotes = true`.
    Tsv,
    /// Apache Parquet.
    Parquet,
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
fn default_max_bad_rows() -> f64 {
    0.1
}

impl Source {
    /// The privacy domain it belongs to.
    pub fn domain(&self) -> &str {
        self.privacy_domain.as_deref().unwrap_or(&self.name)
    }

    /// A source with every option at its default.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            format: None,
            rows: RowFormat::Auto,
            text: default_text(),
            label: default_label(),
            mapping: Mapping::default(),
            columns: None,
            quotes: None,
            eval_fraction: default_eval_fraction(),
            labels: BTreeMap::new(),
            skip_labels: Vec::new(),
            privacy_domain: None,
            public: false,
            on_bad_row: OnBadRow::Stop,
            max_bad_rows: default_max_bad_rows(),
        }
    }

    /// The first key that names a column which `columns` does not list.
    pub fn unlisted_column(&self) -> Option<(&'static str, &str)> {
        let listed = self.columns.as_ref()?;
        self.named_columns().find(|(_, column)| !Column::new(column).is_in(listed))
    }

    /// The keys that name a column, and their columns. `text` and `label` have names by default.
    /// Such a default counts only where `rows` says that the rows are labelled texts.
    pub(super) fn named_columns(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let map = &self.mapping;
        let named = [
            ("prompt", &map.prompt),
            ("completion", &map.completion),
            ("instruction", &map.instruction),
            ("input", &map.input),
            ("output", &map.output),
            ("messages", &map.messages),
            ("question", &map.question),
            ("choice_labels", &map.choice_labels),
            ("answer", &map.answer),
            ("group", &map.group),
        ];
        let texts = [("text", &self.text, default_text()), ("label", &self.label, default_label())];
        let texts =
            texts.into_iter().filter(|(_, column, default)| self.rows == RowFormat::Labelled || *column != default);
        let choices = map.choices.iter().flat_map(|choices| match choices {
            Columns::One(column) => std::slice::from_ref(column),
            Columns::Many(columns) => columns,
        });
        let named = named.into_iter().filter_map(|(role, column)| Some((role, column.as_deref()?)));
        texts
            .map(|(role, column, _)| (role, column.as_str()))
            .chain(named)
            .chain(choices.map(|column| ("choices", column.as_str())))
    }

    /// The format in client.toml. Without one, the extension decides and, of JSON, the first
    /// character.
    ///
    /// # Errors
    /// The extension is unknown; of JSON, the file cannot be read.
    pub fn format(&self) -> Result<Format, DataError> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        match self.path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "ndjson" | "json") if self.starts_with_a_list()? => Ok(Format::Json),
            Some("jsonl" | "ndjson" | "json") => Ok(Format::Jsonl),
            Some("csv") => Ok(Format::Csv),
            Some("tsv" | "tab") => Ok(Format::Tsv),
            Some("parquet") => Ok(Format::Parquet),
            _ => Err(DataError::UnknownFormat { file: self.path.clone() }),
        }
    }

    /// Files that hold one list are often named .jsonl.
    fn starts_with_a_list(&self) -> Result<bool, DataError> {
        let io = |source| DataError::Io { file: self.path.clone(), source };
        let mut start = Vec::new();
        File::open(&self.path).map_err(io)?.take(4096).read_to_end(&mut start).map_err(io)?;
        let start = start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&start);
        Ok(start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'['))
    }
}
