//! `rondo-client chat`: a conversation in a terminal.

use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use rondo_data::{Message, Role};
use rondo_proto::run_file::Quantise;
use rondo_trainer::error::TrainerError;
use rondo_trainer::generate::{FinishReason, Memory, Options, StreamDecoder};
use rondo_trainer::session::Session;
use rondo_trainer::text::tokens::Tokens;
use serde_json::json;

use super::adapted_model;
use super::arguments::DeviceArgs;
use super::error::OfflineError;
use super::generate::{dtype, write_token};
use super::sampling::SamplingArgs;

const HELP: &str = "/reset          forget the conversation
/system TEXT    set the instructions and forget the conversation; without TEXT, none
/save FILE      write the conversation to FILE, as a row of `messages`
/quit           end (as does the end of the input)
Ctrl-C stops an answer.";

/// Talks with a model in a terminal, with or without an adapter
#[derive(Debug, Args)]
#[command(after_help = "In the conversation: /reset, /system TEXT, /save FILE, /help, /quit; Ctrl-C stops an answer.

Example:
  rondo-client chat --model models/smollm2-135m-instruct --adapter adapter --system 'Answer in one sentence.'
  printf 'Hi!\\nWhat did I say?\\n' | rondo-client chat --model smollm2.gguf --temperature 0")]
pub struct ChatArgs {
    /// The base model: a Hugging Face folder or a .gguf file
    #[arg(long, value_name = "DIR|FILE.gguf")]
    pub model: PathBuf,
    /// Folder of an adapter that `rondo-client train` or `rondo
    /// adapter export` wrote [default: none, the bare base]
    #[arg(long, value_name = "DIR|none")]
    pub adapter: Option<PathBuf>,
    /// Instructions before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// How tokens are drawn.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Number format that the model computes in
    #[arg(long, value_parser = ["f32", "bf16"], default_value = "f32")]
    pub dtype: String,
    /// What to compute on.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print one JSON object per answer
    #[arg(long)]
    pub json: bool,
}

/// Set from outside, for example by Ctrl-C, to stop the present answer.
pub type Stop = AtomicBool;

/// Talks until the input ends. A line is a message, or a command where it starts with `/`.
///
/// # Errors
/// An option's value is out of range, the model or the adapter cannot be loaded or do not fit each
/// other, the model has no usable chat template, generating fails, or the input or output fails.
pub fn chat(args: &ChatArgs, input: &mut dyn BufRead, out: &mut dyn Write, stop: &Stop) -> Result<(), OfflineError> {
    let sampling = args.sampling.sampling(0.7)?;
    let adapter = adapted_model::read_optional(args.adapter.as_ref())?;
    let mut trainer = args.device.trainer()?;
    let device = trainer.device();
    let loaded = trainer.model(&args.model, "", dtype(&args.dtype), Quantise::None)?;
    let named = args.adapter.as_deref().zip(adapter.as_ref());
    let session = adapted_model::language(&*loaded.model, device, &args.model, named)?;
    let stops = loaded.tokens.ends().to_vec();
    let options = Options { max_new_tokens: args.sampling.max_new_tokens, sampling, stops };
    // A model without a chat template is refused before a word is typed.
    if let Some(problem) = loaded.tokens.lacks_chat_template() {
        let fix =
            "talk with a model that was tuned for chats, or have this one go on from a text: `rondo-client generate`";
        return Err(OfflineError::NoChatTemplate { model: args.model.clone(), problem, fix });
    }
    loaded.tokens.conversation(&[Message::new(Role::User, "?")])?;
    let mut conversation = Conversation {
        session: &session,
        tokens: &loaded.tokens,
        options,
        messages: Vec::new(),
        memory: Memory::default(),
        json: args.json,
        // Prompts are for people.
        prompts: !args.json && io::stdin().is_terminal() && io::stdout().is_terminal(),
    };
    conversation.system(args.system.as_deref().unwrap_or_default());
    conversation.run(input, out, stop)
}

/// A conversation in progress.
struct Conversation<'s, 'm> {
    session: &'s Session<'m>,
    tokens: &'s Tokens,
    options: Options,
    messages: Vec<Message>,
    memory: Memory,
    json: bool,
    prompts: bool,
}

impl Conversation<'_, '_> {
    fn run(&mut self, input: &mut dyn BufRead, out: &mut dyn Write, stop: &Stop) -> Result<(), OfflineError> {
        let mut line = String::new();
        loop {
            if self.prompts {
                write!(out, "> ")?;
                out.flush()?;
            }
            line.clear();
            if input.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let text = line.trim();
            let (command, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            match command {
                "" => {}
                "/quit" | "/exit" => return Ok(()),
                "/reset" => self.messages.retain(|message| message.role == Role::System),
                "/system" => self.system(rest.trim()),
                "/save" => self.save(rest.trim(), out)?,
                "/help" => self.say(out, "help", HELP)?,
                command if command.starts_with('/') => {
                    self.say(out, "error", &format!("there is no {command}\n{HELP}"))?
                }
                _ => self.answer(text, out, stop)?,
            }
        }
    }

    /// A line for people or, with --json, an object of this one key.
    fn say(&self, out: &mut dyn Write, key: &str, text: &str) -> io::Result<()> {
        if self.json { writeln!(out, "{}", json!({ key: text })) } else { writeln!(out, "{text}") }
    }

    fn system(&mut self, text: &str) {
        self.messages.clear();
        if !text.is_empty() {
            self.messages.push(Message::new(Role::System, text));
        }
    }

    fn save(&self, path: &str, out: &mut dyn Write) -> io::Result<()> {
        if path.is_empty() {
            return self.say(out, "error", "/save takes the name of a file");
        }
        // A name that cannot be written is no reason to lose the conversation.
        match std::fs::write(Path::new(path), format!("{}\n", json!({ "messages": self.messages }))) {
            Ok(()) => self.say(out, "saved", &format!("saved {} messages in {path}", self.messages.len())),
            Err(error) => self.say(out, "error", &format!("{path}: {error}")),
        }
    }

    fn answer(&mut self, text: &str, out: &mut dyn Write, stop: &Stop) -> Result<(), OfflineError> {
        self.messages.push(Message::new(Role::User, text));
        let ids = self.tokens.conversation(&self.messages)?;
        let mut spoken = StreamDecoder::default();
        let mut failed = None;
        stop.store(false, Ordering::SeqCst);
        let reply = self.memory.reply(self.session, &ids, &self.options, &mut |_, id| {
            if !self.json
                && let Err(error) = write_token(&mut spoken, id, self.tokens, out)
            {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            if stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let generated = match reply {
            Ok(generated) => generated,
            Err(error @ TrainerError::Prompt { .. }) => {
                // The conversation is too long, not broken: it goes on after a /reset.
                self.messages.pop();
                return Ok(self.say(out, "error", &format!("{error}; /reset starts anew"))?);
            }
            Err(error) => return Err(error.into()),
        };
        let said = self.tokens.text(&generated.ids)?;
        if self.json {
            let tokens = generated.ids.len();
            let ending = generated.finish_reason;
            writeln!(out, "{}", json!({ "text": said, "tokens": tokens, "ending": ending }))?;
        } else {
            let cut = if generated.finish_reason == FinishReason::Stop { "" } else { " [...]" };
            writeln!(out, "{}{cut}", spoken.finish(|ids| self.tokens.text(ids))?)?;
        }
        self.messages.push(Message::new(Role::Assistant, said));
        Ok(())
    }
}
