//! `[task]`: what the model learns to do, and how that is measured.

use serde::{Deserialize, Deserializer, Serialize};

/// What the model learns to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The kind of task.
    pub kind: TaskKind,
    /// Name of the data set; each client maps it to files of its own.
    pub dataset: String,
    /// Class labels, in the order of the head's rows; of classification alone.
    /// Without spaces at their ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "labels")]
    pub labels: Vec<String>,
    /// Longest input in tokens; longer texts are cut at the end.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// Whether the classifier head is trained and averaged, or stays as seeded.
    #[serde(default)]
    pub head: HeadMode,
    /// How token states become one vector.
    #[serde(default)]
    pub pooling: Pooling,
    /// Which tokens a language model learns to predict.
    #[serde(default)]
    pub loss_on: LossOn,
    /// How instructions become text.
    #[serde(default)]
    pub template: Template,
    /// How options of a multiple choice compare.
    #[serde(default)]
    pub option_score: OptionScore,
    /// What of a generated text is the answer (exact-answer).
    #[serde(default)]
    pub answer: AnswerRule,
    /// Most tokens generated for one answer (exact-answer).
    #[serde(default = "default_max_new_tokens")]
    pub max_new_tokens: usize,
}

fn default_max_tokens() -> usize {
    128
}
fn default_max_new_tokens() -> usize {
    128
}

/// Kinds of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// One label out of a fixed list for a text.
    Classification,
    /// The next token of a text; measured by loss and next-token accuracy.
    CausalLm,
    /// One of a question's options, by their likelihood; trained on the right one.
    MultipleChoice,
    /// An answer that is generated and compared; trained as causal-lm.
    ExactAnswer,
}

impl TaskKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Classification, Self::CausalLm, Self::MultipleChoice, Self::ExactAnswer];

    /// As a run file writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::CausalLm => "causal-lm",
            Self::MultipleChoice => "multiple-choice",
            Self::ExactAnswer => "exact-answer",
        }
    }

    /// True for the kinds that need a language model; the others need an encoder with a head.
    pub fn needs_language_model(self) -> bool {
        self != Self::Classification
    }
}

/// A label without white space at its ends. Labels of run files, of data and of command lines
/// compare by it: what nobody sees must not set two labels apart.
pub fn trimmed(label: &str) -> &str {
    label.trim()
}

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let labels = Vec::<String>::deserialize(deserializer)?;
    Ok(labels.iter().map(|label| trimmed(label).to_owned()).collect())
}

/// Which tokens count in a language model's loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossOn {
    /// What the model should say: completions, and the assistant's turns of a chat.
    #[default]
    Completion,
    /// Every token.
    All,
}

/// How the columns of an instruction row become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Template {
    /// The base model's chat template for rows of `messages`, plain text for the others.
    #[default]
    Auto,
    /// Plain text with headings, as Alpaca's; a prompt and a completion follow one another as they
    /// are.
    Plain,
    /// The base model's chat template for every row.
    Chat,
}

/// How the options of a multiple choice compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptionScore {
    /// By the mean log-likelihood of their tokens, so that long options are not at a loss.
    #[default]
    PerToken,
    /// By the log-likelihood of the whole option.
    Sum,
}

/// What of a generated text, and of the reference, is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerRule {
    /// The number behind the last `####`, as in GSM8K; without one, the last number.
    #[default]
    Number,
    /// The whole text, without case, punctuation and spaces at its ends.
    Text,
}

/// What happens to the classifier head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadMode {
    /// Trained by clients, averaged by the coordinator.
    #[default]
    Train,
    /// Kept as seeded.
    Freeze,
}

/// How token states become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Mean over tokens that are not padding.
    #[default]
    Mean,
    /// State of the first token.
    Cls,
}
