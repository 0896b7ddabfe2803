//! `rondo-client generate`: goes on from a prompt, for people to see what a run did.

use std::io::{self, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use rondo_data::{Message, Role};
use rondo_proto::run_file::{Dtype, Quantise};
use rondo_trainer::generate::{Generated, Options, StreamDecoder, generate as run};
use rondo_trainer::text::tokens::Tokens;
use serde_json::json;

use super::adapted_model;
use super::arguments::DeviceArgs;
use super::error::OfflineError;
use super::sampling::SamplingArgs;

/// Generates text from a prompt, with or without an adapter
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client generate --model models/smollm2-135m --prompt 'The capital of France is' --max-new-tokens 16
  rondo-client generate --model smollm2.gguf --adapter adapter --chat --prompt 'Name three rivers' --temperature 0.7 --top-p 0.9
  echo 'Once upon a time' | rondo-client generate --model models/smollm2-135m --file - --seed 7 --temperature 1 --json")]
pub struct GenerateArgs {
    /// The base model: a Hugging Face folder or a .gguf file
    #[arg(long, value_name = "DIR|FILE.gguf")]
    pub model: PathBuf,
    /// Folder of an adapter that `rondo-client train` or `rondo
    /// adapter export` wrote [default: none, the bare base]
    #[arg(long, value_name = "DIR|none")]
    pub adapter: Option<PathBuf>,
    /// The text to go on from
    #[arg(long, value_name = "TEXT", required_unless_present = "file", conflicts_with = "file")]
    pub prompt: Option<String>,
    /// A file with the text to go on from; - reads standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Take the prompt as a person's message and lay it out by the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// Instructions before the message
    #[arg(long, value_name = "TEXT", requires = "chat")]
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
    /// Print the outcome as JSON, when all is said
    #[arg(long)]
    pub json: bool,
}

/// Generates and streams the text to `out`.
///
/// # Errors
/// An option's value is out of range, the prompt, the model or the adapter cannot be read, `--chat`
/// meets a model without a chat template, generating fails, or the text cannot be written.
pub fn generate(args: &GenerateArgs, out: &mut dyn Write) -> Result<(), OfflineError> {
    let sampling = args.sampling.sampling(0.0)?;
    let prompt = prompt(args)?;
    let adapter = adapted_model::read_optional(args.adapter.as_ref())?;
    let mut trainer = args.device.trainer()?;
    let device = trainer.device();
    let loaded = trainer.model(&args.model, "", dtype(&args.dtype), Quantise::None)?;
    let named = args.adapter.as_deref().zip(adapter.as_ref());
    let session = adapted_model::language(&*loaded.model, device, &args.model, named)?;
    let tokens = &loaded.tokens;
    if let Some(problem) = tokens.lacks_chat_template().filter(|_| args.chat) {
        let fix = "leave --chat out, and write the prompt as the model is to read it";
        return Err(OfflineError::NoChatTemplate { model: args.model.clone(), problem, fix });
    }
    let ids = if args.chat { tokens.conversation(&messages(args, &prompt))? } else { open_ended(tokens, &prompt)? };
    let options = Options { max_new_tokens: args.sampling.max_new_tokens, sampling, stops: tokens.ends().to_vec() };

    let mut watch = Watch::start();
    let mut spoken = StreamDecoder::default();
    let mut failed = None;
    let mut texts = run(&session, &[&ids], &options, &mut |_, id| {
        watch.token();
        if args.json {
            return ControlFlow::Continue(());
        }
        match write_token(&mut spoken, id, tokens, out) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let generated = texts.swap_remove(0);
    if args.json {
        let report = json!({
            "prompt": prompt, "text": tokens.text(&generated.ids)?, "ending": generated.finish_reason,
            "prompt_tokens": ids.len(), "tokens": generated.ids.len(),
            "prompt_seconds": watch.prompt().as_secs_f64(), "tokens_per_second": watch.rate(),
        });
        return Ok(writeln!(out, "{report}")?);
    }
    writeln!(out, "{}", spoken.finish(|ids| tokens.text(ids))?)?;
    if io::stderr().is_terminal() {
        writeln!(io::stderr(), "{}", watch.line(ids.len(), &generated))?;
    }
    Ok(())
}

/// Writes the text that is certain once this token has come.
pub(super) fn write_token(
    spoken: &mut StreamDecoder,
    id: i64,
    tokens: &Tokens,
    out: &mut dyn Write,
) -> Result<(), OfflineError> {
    let text = spoken.push(id, |ids| tokens.text(ids))?;
    write!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Ids of a text; a tokenizer that ends every text itself would have the model go on behind an end.
fn open_ended(tokens: &Tokens, text: &str) -> Result<Vec<i64>, OfflineError> {
    let mut ids = tokens.ids(text)?;
    if ids.len() > 1 && ids.last().is_some_and(|last| tokens.ends().contains(last)) {
        ids.pop();
    }
    Ok(ids)
}

/// The number format by its name.
pub(super) fn dtype(name: &str) -> Dtype {
    if name == "bf16" { Dtype::Bf16 } else { Dtype::F32 }
}

fn prompt(args: &GenerateArgs) -> Result<String, OfflineError> {
    let Some(path) = &args.file else { return Ok(args.prompt.clone().unwrap_or_default()) };
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|source| OfflineError::Read { path: path.clone(), source })?;
    // The line's end is the file's, not the prompt's.
    Ok(text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text).to_owned())
}

fn messages(args: &GenerateArgs, prompt: &str) -> Vec<Message> {
    let system = args.system.iter().map(|text| Message::new(Role::System, text.as_str()));
    system.chain([Message::new(Role::User, prompt)]).collect()
}

/// How long the prompt and the tokens take.
pub(super) struct Watch {
    start: Instant,
    first: Option<Instant>,
    last: Instant,
    tokens: usize,
}

impl Watch {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { start: now, first: None, last: now, tokens: 0 }
    }

    pub(super) fn token(&mut self) {
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
        self.tokens += 1;
    }

    /// Up to the first token.
    fn prompt(&self) -> Duration {
        self.first.unwrap_or(self.last) - self.start
    }

    /// Tokens a second after the first one.
    fn rate(&self) -> Option<f64> {
        let seconds = (self.last - self.first?).as_secs_f64();
        (self.tokens > 1 && seconds > 0.0).then(|| (self.tokens - 1) as f64 / seconds)
    }

    fn line(&self, prompt: usize, generated: &Generated) -> String {
        let rate = self.rate().map_or_else(String::new, |rate| format!(", {rate:.1} tokens/s"));
        let ending = serde_json::to_value(generated.finish_reason).unwrap_or_default();
        let ending = ending.as_str().unwrap_or_default().to_owned();
        let seconds = self.prompt().as_secs_f64();
        format!("[{prompt} tokens of prompt in {seconds:.2} s, {} new{rate}, ended by {ending}]", self.tokens)
    }
}
