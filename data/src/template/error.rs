//! Why a template cannot be used, and whose fault it is: the template's or the conversation's.

use std::fmt;

use minijinja::ErrorKind;
use rondo_proto::wording::SettingKey;

/// Why a conversation could not be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is not Jinja as we know it.
    #[error(
        "the model's chat template cannot be read: {0}; {plain}, or fix the model's chat_template",
        plain = SettingKey::Template.set("plain")
    )]
    Syntax(String),
    /// The template uses something that is not known here.
    #[error(
        "the model's chat template uses {what}, which is not supported{line}; {plain}, or fix the model's chat_template",
        plain = SettingKey::Template.set("plain")
    )]
    NotSupported {
        /// What it uses.
        what: String,
        /// Where, in words; empty where that is not known.
        line: String,
    },
    /// The template takes more steps or memory than any conversation needs.
    #[error("the model's chat template does not come to an end; {}, or fix the model's chat_template", SettingKey::Template.set("plain"))]
    Endless,
    /// The template refused the conversation by `raise_exception`.
    #[error("the chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template failed on the conversation.
    #[error("the chat template fails on the conversation: {0}")]
    Failed(String),
    /// The template drops something of the conversation.
    #[error("the chat template does not show {what} of the conversation")]
    Dropped {
        /// What it drops.
        what: String,
    },
    /// The assistant's turns cannot be separated from the rest.
    #[error(
        "the chat template lays turn {turn} out otherwise when more turns follow, so that what the assistant says cannot be \
         separated; {}, or {}",
        SettingKey::LossOn.set("all"), SettingKey::Template.with("plain")
    )]
    NotAPrefix {
        /// The assistant's turn, from 1.
        turn: usize,
    },
}

/// Marks the error of `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Whose fault an error is: the template's, or the conversation's.
pub(super) fn refusal(error: &minijinja::Error) -> TemplateError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(next) = cause {
        if next.is::<Raised>() {
            return TemplateError::Refused(described(error));
        }
        cause = next.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => TemplateError::Endless,
        ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownFunction
        | ErrorKind::UnknownMethod
        | ErrorKind::TooManyArguments
        | ErrorKind::TemplateNotFound => {
            let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            let what = detail.strip_suffix(" is unknown").map_or(detail.clone(), str::to_owned);
            TemplateError::NotSupported { what: format!("({what})"), line: line_of(error) }
        }
        _ => TemplateError::Failed(described(error)),
    }
}

/// Why a template does not compile: a statement that is not known here, or a mistake.
pub(super) fn not_compiled(error: &minijinja::Error) -> TemplateError {
    match error.detail().and_then(|detail| detail.strip_prefix("unknown statement ")) {
        Some(statement) => TemplateError::NotSupported { what: format!("`{statement}`"), line: line_of(error) },
        None => TemplateError::Syntax(described(error)),
    }
}

/// What went wrong, and on which line of the template.
pub(super) fn described(error: &minijinja::Error) -> String {
    let line = line_of(error);
    match error.detail() {
        Some(detail) => format!("{detail}{line}"),
        None => format!("{}{line}", error.kind()),
    }
}

fn line_of(error: &minijinja::Error) -> String {
    error.line().map_or_else(String::new, |line| format!(" (line {line} of the template)"))
}
