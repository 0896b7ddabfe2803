//! What is learnt or measured, as options of the offline commands.

use std::collections::BTreeSet;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use rondo_proto::run_file::{AnswerRule, HeadMode, LossOn, OptionScore, Pooling, Task, TaskKind, Template, trimmed};

use super::error::OfflineError;

/// The kinds of task, as run files write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One label out of a fixed list for a text
    Classification,
    /// The next tokens of a text: loss and perplexity
    CausalLm,
    /// One of a question's options, by their likelihood
    MultipleChoice,
    /// An answer that is generated and compared
    ExactAnswer,
}

impl From<Kind> for TaskKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Classification => Self::Classification,
            Kind::CausalLm => Self::CausalLm,
            Kind::MultipleChoice => Self::MultipleChoice,
            Kind::ExactAnswer => Self::ExactAnswer,
        }
    }
}

/// Options of a task; docs/tasks.md says what each does.
#[derive(Debug, Clone, Args)]
pub struct TaskArgs {
    /// The kind of task [default: classification, where labels are given or the adapter has them]
    #[arg(long, value_enum, value_name = "KIND")]
    pub task: Option<Kind>,
    /// Longest input in tokens [default: the adapter's, else 64 for classification and 512 for the
    /// others, or what the model can take]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// Which tokens a language model's loss is about
    #[arg(long, value_parser = PossibleValuesParser::new(["completion", "all"]), default_value = "completion")]
    pub loss_on: String,
    /// How rows become text: "chat" = the model's chat template, "plain"
    /// = headings, "auto" = chat for rows of messages
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "plain", "chat"]), default_value = "auto")]
    pub template: String,
    /// How the options of a multiple choice compare
    #[arg(long, value_parser = PossibleValuesParser::new(["per-token", "sum"]), default_value = "per-token")]
    pub option_score: String,
    /// What of a text is the answer of exact-answer
    #[arg(long, value_parser = PossibleValuesParser::new(["number", "text"]), default_value = "number")]
    pub answer: String,
    /// Most tokens generated for an answer of exact-answer
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_new_tokens: usize,
}

/// Refuses labels that are empty or stand there twice.
pub(super) fn check_labels(labels: &[String]) -> Result<(), OfflineError> {
    let mut seen = BTreeSet::new();
    let refused = |problem: String| Err(OfflineError::Value { option: "--labels", problem });
    match labels.iter().map(|label| trimmed(label)).find(|label| label.is_empty() || !seen.insert(*label)) {
        Some("") => refused("has an empty label".to_owned()),
        Some(twice) => refused(format!("names {twice:?} twice")),
        None => Ok(()),
    }
}

/// Longest input where nothing says it.
const CLASSIFIER_TOKENS: usize = 64;
const LANGUAGE_TOKENS: usize = 512;

impl TaskArgs {
    /// The kind said; classification where labels are known and nothing is said.
    pub(super) fn kind(&self, labels_are_known: bool) -> Result<TaskKind, OfflineError> {
        match self.task {
            Some(kind) => Ok(kind.into()),
            None if labels_are_known => Ok(TaskKind::Classification),
            None => {
                let problem = "is needed: classification (with --labels), causal-lm, multiple-choice or exact-answer";
                Err(OfflineError::Value { option: "--task", problem: problem.to_owned() })
            }
        }
    }

    /// The task of a run with these options. `limit` = positions of the model.
    pub(super) fn task(&self, kind: TaskKind, dataset: &str, labels: &[String], limit: usize) -> Task {
        let usual = if kind.needs_language_model() { LANGUAGE_TOKENS } else { CLASSIFIER_TOKENS };
        Task {
            kind,
            dataset: dataset.to_owned(),
            labels: labels.iter().map(|label| trimmed(label).to_owned()).collect(),
            max_tokens: self.max_tokens.unwrap_or(usual.min(limit)),
            head: HeadMode::default(),
            pooling: Pooling::default(),
            loss_on: if self.loss_on == "all" { LossOn::All } else { LossOn::Completion },
            template: match self.template.as_str() {
                "plain" => Template::Plain,
                "chat" => Template::Chat,
                _ => Template::Auto,
            },
            option_score: if self.option_score == "sum" { OptionScore::Sum } else { OptionScore::PerToken },
            answer: if self.answer == "text" { AnswerRule::Text } else { AnswerRule::Number },
            max_new_tokens: self.max_new_tokens,
        }
    }
}
