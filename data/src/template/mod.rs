//! The base model's own chat template: Jinja, as Python's transformers renders it.

mod arguments;
mod calendar;
mod error;
mod filters;
mod format;
mod json;
mod number_format;
mod ordered;
mod python;
mod source;
mod strings;
mod support;
mod text;
mod tokens;

use std::ops::Range;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use serde_json::{Value, json};

use super::{Conversation, Message, Role};
use calendar::DAY;
pub use error::TemplateError;
use error::{Raised, described, not_compiled, refusal};

/// A text that shows whether a template writes out what it is given.
const PROBE: &str = "rondo-probe";
/// What a rendering may cost before it is refused: about so many instructions, or 64 bytes each.
const FUEL: u64 = 4_000_000;
/// What every byte of the conversation adds to it.
const FUEL_PER_BYTE: u64 = 32;

/// A template with headings, for conversations that are to be plain text.
const PLAIN: &str = "{% for message in messages %}{{ '### ' ~ message.role.capitalize() ~ ':\n' ~ message.content }}\
    {% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}";

/// Names of special tokens, as templates know them (`bos_token` ...), and their text.
pub type SpecialTokens = std::collections::BTreeMap<String, String>;

/// A compiled template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    special: SpecialTokens,
    /// Whether it shows content in parts; it is given their texts as one otherwise.
    shows_parts: bool,
    /// Whether it shows what a developer says; it is given as the system's otherwise.
    shows_developer: bool,
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
        environment.set_unknown_method_callback(python::method);
        environment.set_formatter(|out, state, value| match value.as_str() {
            Some(text) => out.write_str(text).map_err(minijinja::Error::from),
            None => out.write_str(&text::text(state, value)?).map_err(minijinja::Error::from),
        });
        filters::set_up(&mut environment);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
        });
        environment.add_function("strftime_now", |format: String| DAY.format(&format));
        let source = source::rewritten(source).map_err(|(what, line)| TemplateError::NotSupported {
            what,
            line: format!(" (line {line} of the template)"),
        })?;
        environment.add_template_owned("chat", source).map_err(|error| not_compiled(&error))?;
        let mut template =
            Self { environment: Arc::new(environment), special, shows_parts: true, shows_developer: true };
        let shown = |turns: &[Value]| {
            let turns = Value::from(turns.to_vec()).to_string();
            template.render_json(&turns, None, None, false).unwrap_or_default()
        };
        let answer = json!({ "role": "assistant", "content": "a" });
        let parts = [json!({ "role": "user", "content": [{ "type": "text", "text": PROBE }] }), answer.clone()];
        let developer =
            [json!({ "role": "developer", "content": PROBE }), json!({ "role": "user", "content": "q" }), answer];
        // A template that takes parts for text writes out the list.
        let parts = shown(&parts);
        let shows_parts = parts.contains(PROBE) && !parts.contains("'text'") && !parts.contains("\"text\"");
        let shows_developer = shown(&developer).contains(PROBE);
        template.shows_parts = shows_parts;
        template.shows_developer = shows_developer;
        Ok(template)
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
    /// The template raises an exception, for example because roles do not alternate; it fails, does
    /// not end, or uses what is not supported.
    pub fn render(&self, talk: &Conversation, add_generation_prompt: bool) -> Result<String, TemplateError> {
        let whole = self.render_turns(talk, talk.len(), add_generation_prompt)?;
        self.check_shown(talk, &whole, add_generation_prompt)?;
        Ok(whole)
    }

    /// Refuses a conversation of which the template leaves out tools, documents, what tools gave
    /// back or what the assistant asked of them: it would be learnt without them. What changes
    /// nothing in the text is left out.
    fn check_shown(&self, talk: &Conversation, whole: &str, prompt: bool) -> Result<(), TemplateError> {
        // An error shows that the template looks at what was taken away.
        let changes =
            |other: &Conversation| self.render_turns(other, other.len(), prompt).map_or(true, |text| text != whole);
        let without = |change: &dyn Fn(&mut Conversation)| {
            let mut other = talk.clone();
            change(&mut other);
            changes(&other)
        };
        let dropped = |what: String| Err(TemplateError::Dropped { what });
        if !talk.tools.is_empty() && !without(&|other| other.tools = "".into()) {
            return dropped("the `tools`".to_owned());
        }
        if !talk.documents.is_empty() && !without(&|other| other.documents = "".into()) {
            return dropped("the `documents`".to_owned());
        }
        for (index, message) in talk.iter().enumerate() {
            if message.role == Role::Tool
                && !without(&|other| other.messages[index].content = "0".into())
                && &*message.content != "0"
            {
                return dropped(format!("what the tool says in turn {}", index + 1));
            }
            let keys = message.extra_keys();
            for key in ["tool_calls", "reasoning_content", "thinking"].into_iter().filter(|key| keys.contains_key(*key))
            {
                let mut fewer = keys.clone();
                fewer.remove(key);
                let fewer = Value::Object(fewer).to_string();
                // Templates leave out what was thought before earlier answers.
                let is_last = !talk[index + 1..].iter().any(|later| later.role == Role::Assistant);
                if (key == "tool_calls" || is_last)
                    && !without(&|other| other.messages[index].extra = fewer.as_str().into())
                {
                    return dropped(format!("`{key}` of turn {}", index + 1));
                }
            }
        }
        Ok(())
    }

    /// A turn as the template is given it.
    fn turn_value(&self, message: &Message) -> Result<minijinja::Value, TemplateError> {
        let role = match message.role {
            Role::Developer if !self.shows_developer => Role::System,
            role => role,
        };
        let mut entries = vec![
            ("role".to_owned(), minijinja::Value::from(role.name())),
            ("content".to_owned(), minijinja::Value::from(&*message.content)),
        ];
        for (key, value) in ordered::object(&message.extra).map_err(|error| TemplateError::Failed(error.to_string()))? {
            match key.as_str() {
                "content" if self.shows_parts || value.is_none() => entries[1].1 = value,
                "content" => {}
                _ => entries.push((key, value)),
            }
        }
        Ok(ordered::with_reasoning(&minijinja::Value::from_pairs(entries)))
    }

    /// The same of the first turns.
    fn render_turns(
        &self,
        talk: &Conversation,
        turns: usize,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let list = |text: &str| match text.is_empty() {
            true => Ok(minijinja::Value::from(())),
            false => ordered::value(text).map_err(|error| TemplateError::Failed(error.to_string())),
        };
        let messages = talk[..turns].iter().map(|turn| self.turn_value(turn));
        let messages = messages.collect::<Result<Vec<_>, _>>()?;
        let given = Given { messages: messages.into(), tools: list(&talk.tools)?, documents: list(&talk.documents)? };
        self.render_given(given, talk.bytes(), add_generation_prompt)
    }

    /// Any messages, tools and documents as text, as transformers' `apply_chat_template` takes them:
    /// JSON texts, whose keys keep their order.
    ///
    /// # Errors
    /// As of [`ChatTemplate::render`]; and what is not JSON.
    pub fn render_json(
        &self,
        messages: &str,
        tools: Option<&str>,
        documents: Option<&str>,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let value = |text: Option<&str>| {
            text.map_or_else(|| Ok(minijinja::Value::from(())), ordered::value)
                .map_err(|error| TemplateError::Failed(error.to_string()))
        };
        let bytes = messages.len() + tools.unwrap_or_default().len() + documents.unwrap_or_default().len();
        let list = value(Some(messages))?;
        let turns = list.try_iter().map_err(|error| refusal(&error))?.map(|turn| ordered::with_reasoning(&turn));
        let messages = turns.collect::<Vec<_>>().into();
        let given = Given { messages, tools: value(tools)?, documents: value(documents)? };
        self.render_given(given, bytes, add_generation_prompt)
    }

    fn render_given(&self, given: Given, bytes: usize, add_generation_prompt: bool) -> Result<String, TemplateError> {
        let mut environment = (*self.environment).clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_BYTE * bytes as u64));
        let template = environment.get_template("chat").map_err(|error| refusal(&error))?;
        let special = minijinja::Value::from(Serde(&self.special));
        let Given { messages, tools, documents } = given;
        let shared = context! { messages, add_generation_prompt, tools, documents };
        template.render(context! { ..shared, ..special }).map_err(|error| refusal(&error))
    }

    /// The conversation in parts, so that the loss can be taken on what the assistant says. A turn
    /// of the assistant is what `render(.. up to it, with the generation prompt)` does not say and
    /// `render(.. with it)` does.
    ///
    /// # Errors
    /// As of [`ChatTemplate::render`]; and a template for which these are not beginnings of the
    /// whole.
    pub fn segments(&self, talk: &Conversation) -> Result<Vec<Segment>, TemplateError> {
        let whole = self.render(talk, false)?;
        let mut segments = Vec::new();
        let mut end = 0;
        for (index, message) in talk.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant) {
            if !message.is_learnt {
                continue;
            }
            let said = self.turn(&whole, talk, index, message)?;
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
        talk: &Conversation,
        index: usize,
        message: &Message,
    ) -> Result<Range<usize>, TemplateError> {
        let not_a_prefix = TemplateError::NotAPrefix { turn: index + 1 };
        let before = self.render_turns(talk, index, true)?;
        let with = match index + 1 == talk.len() {
            true => whole.to_owned(),
            false => self.render_turns(talk, index + 1, false)?,
        };
        if !whole.starts_with(&with) || !with.starts_with(&before) {
            return Err(not_a_prefix);
        }
        let said = &with[before.len()..];
        // What was said must stand there, and behind it only what ends a turn.
        let content = message.content.trim();
        let ending = match said.find(content) {
            Some(at) => &said[at + content.len()..],
            // Parts stand where the template puts them.
            None if !message.extra.is_empty() => said,
            None => return Err(not_a_prefix),
        };
        // The line break behind an end-of-turn token is the next turn's, nothing that the model has
        // to say; where nothing else ends a turn, it is the end.
        let spaces = if ending.trim().is_empty() { 0 } else { ending.len() - ending.trim_end().len() };
        Ok(before.len()..with.len() - spaces)
    }
}

/// What a template is given of a conversation.
struct Given {
    messages: minijinja::Value,
    tools: minijinja::Value,
    documents: minijinja::Value,
}
