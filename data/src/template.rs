//! The base model's own chat template: Jinja, as Python's transformers renders it.

use std::ops::Range;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use rondo_proto::wording::SettingKey;

use super::{Message, Role};

/// The day that `strftime_now` gives. With today's date, templates would give other tokens every
/// day, and equal work must give equal bits. It is the day that such templates fall back to.
const DAY: Day = Day { year: 2024, month: 7, day: 26, weekday: 5, of_year: 208 };

/// A template with headings, for conversations that are to be plain text.
const PLAIN: &str = "{% for message in messages %}{{ '### ' ~ message.role.capitalize() ~ ':\n' ~ message.content }}\
    {% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}";

/// Names of special tokens, as templates know them (`bos_token` ...), and their text.
pub type SpecialTokens = std::collections::BTreeMap<String, String>;

/// Why a conversation could not be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is not Jinja as we know it.
    #[error(
        "the model's chat template cannot be read: {0}; {plain}, or fix the model's chat_template",
        plain = SettingKey::Template.set("plain")
    )]
    Syntax(String),
    /// The template refused the conversation, or failed on it.
    #[error("the chat template refuses the conversation: {0}")]
    Refused(String),
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

/// A compiled template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    special: SpecialTokens,
}

/// A part of a rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The text; all segments end to end are the rendered conversation.
    pub text: String,
    /// Whether the model is to say it: a turn of the assistant, with the tokens that end it.
    pub is_assistant: bool,
}

impl ChatTemplate {
    /// Compiles a template. `special` holds what templates may name, such as `bos_token` = `<s>`.
    ///
    /// # Errors
    /// Not Jinja, or with tags that are not known.
    pub fn new(source: &str, special: SpecialTokens) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Syntax(described(&error)))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| DAY.format(&format));
        let source = without_generation_tags(source);
        environment.add_template_owned("chat", source).map_err(|error| TemplateError::Syntax(described(&error)))?;
        Ok(Self { environment: Arc::new(environment), special })
    }

    /// The plain template with headings, for models without a chat template.
    ///
    /// # Errors
    /// The built-in template does not compile, which is a fault of this crate.
    pub fn plain(special: SpecialTokens) -> Result<Self, TemplateError> {
        Self::new(PLAIN, special)
    }

    /// The conversation as text; with `add_generation_prompt` up to where the assistant's next turn
    /// begins.
    ///
    /// # Errors
    /// The template raises an exception, for example because roles do not alternate.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TemplateError> {
        let refused = |error: minijinja::Error| TemplateError::Refused(described(&error));
        let template = self.environment.get_template("chat").map_err(refused)?;
        let special = minijinja::Value::from(Serde(&self.special));
        let messages = Serde(messages);
        let shared = context! { messages, add_generation_prompt, tools => (), documents => () };
        template.render(context! { ..shared, ..special }).map_err(refused)
    }

    /// The conversation in parts, so that the loss can be taken on what the assistant says. A turn
    /// of the assistant is what `render(.. up to it, with the generation prompt)` does not say and
    /// `render(.. with it)` does.
    ///
    /// # Errors
    /// As of [`ChatTemplate::render`]; and a template for which these are not beginnings of the
    /// whole.
    pub fn segments(&self, messages: &[Message]) -> Result<Vec<Segment>, TemplateError> {
        let whole = self.render(messages, false)?;
        let mut segments = Vec::new();
        let mut end = 0;
        for (index, message) in messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant) {
            let said = self.turn(&whole, messages, index, message)?;
            if said.start < end {
                return Err(TemplateError::NotAPrefix { turn: index + 1 });
            }
            segments.push(Segment { text: whole[end..said.start].to_owned(), is_assistant: false });
            segments.push(Segment { text: whole[said.clone()].to_owned(), is_assistant: true });
            end = said.end;
        }
        segments.push(Segment { text: whole[end..].to_owned(), is_assistant: false });
        segments.retain(|segment| !segment.text.is_empty());
        Ok(segments)
    }

    fn turn(
        &self,
        whole: &str,
        messages: &[Message],
        index: usize,
        message: &Message,
    ) -> Result<Range<usize>, TemplateError> {
        let not_a_prefix = TemplateError::NotAPrefix { turn: index + 1 };
        let before = self.render(&messages[..index], true)?;
        let with =
            if index + 1 == messages.len() { whole.to_owned() } else { self.render(&messages[..=index], false)? };
        if !whole.starts_with(&with) || !with.starts_with(&before) {
            return Err(not_a_prefix);
        }
        let said = &with[before.len()..];
        // What was said must stand there, and behind it only what ends a turn.
        let content = message.content.trim();
        let Some(at) = said.find(content) else { return Err(not_a_prefix) };
        let ending = &said[at + content.len()..];
        // The line break behind an end-of-turn token is the next turn's, nothing that the model has
        // to say; where nothing else ends a turn, it is the end.
        let spaces = if ending.trim().is_empty() { 0 } else { ending.len() - ending.trim_end().len() };
        Ok(before.len()..with.len() - spaces)
    }
}

/// `{% generation %}` marks what the assistant says for transformers' own masks; it renders
/// nothing.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let before = &rest[..start];
        let tag = &rest[start..start + length + 2];
        let after = &rest[start + length + 2..];
        out.push_str(before);
        let inner = &tag[2..tag.len() - 2];
        match inner.trim_matches(['-', '+', ' ', '\n', '\t']) {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

/// What went wrong, and on which line of the template.
fn described(error: &minijinja::Error) -> String {
    let line = error.line().map_or_else(String::new, |line| format!(" (line {line} of the template)"));
    match error.detail() {
        Some(detail) => format!("{detail}{line}"),
        None => format!("{}{line}", error.kind()),
    }
}

/// A day, and what `strftime` needs of it.
struct Day {
    year: u32,
    month: u32,
    day: u32,
    /// From Sunday, 0.
    weekday: usize,
    of_year: u32,
}

impl Day {
    /// The directives of a date; the time of day is midnight.
    fn format(&self, format: &str) -> String {
        const MONTHS: [&str; 12] = [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ];
        const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
        let month = MONTHS[self.month as usize - 1];
        let weekday = DAYS[self.weekday];
        let mut out = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                out.push(letter);
                continue;
            }
            match letters.next() {
                Some('Y') => out.push_str(&self.year.to_string()),
                Some('y') => out.push_str(&format!("{:02}", self.year % 100)),
                Some('m') => out.push_str(&format!("{:02}", self.month)),
                Some('d') => out.push_str(&format!("{:02}", self.day)),
                Some('e') => out.push_str(&format!("{:2}", self.day)),
                Some('j') => out.push_str(&format!("{:03}", self.of_year)),
                Some('B') => out.push_str(month),
                Some('b' | 'h') => out.push_str(&month[..3]),
                Some('A') => out.push_str(weekday),
                Some('a') => out.push_str(&weekday[..3]),
                Some('H' | 'M' | 'S') => out.push_str("00"),
                Some('I') => out.push_str("12"),
                Some('p') => out.push_str("AM"),
                Some('F') => out.push_str(&format!("{}-{:02}-{:02}", self.year, self.month, self.day)),
                Some('%') => out.push('%'),
                Some(other) => out.extend(['%', other]),
                None => out.push('%'),
            }
        }
        out
    }
}
