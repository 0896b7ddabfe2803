//! `rondo-client evaluate`: an exported adapter, or the bare base, measured on local data, offline.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use rondo_methods::export::head::Head;
use rondo_methods::export::peft::PeftAdapter;
use rondo_methods::head::{HEAD_BIAS, HEAD_WEIGHT};
use rondo_methods::init::seeded::{self, Identity};
use rondo_methods::{Tensor, TensorSet};
use rondo_proto::run_file::{Quantise, Task, TaskKind, trimmed};
use rondo_trainer::device::Device;
use rondo_trainer::models::Transformer;
use rondo_trainer::session::Session;
use rondo_trainer::tasks::{self, Outcome};
use serde_json::json;

use super::arguments::{DataArgs, DeviceArgs, at_least_one, fraction};
use super::error::OfflineError;
use super::generate::dtype;
use super::out_dir::check_file;
use super::progress_bar::Bar;
use super::task::{TaskArgs, check_labels};
use super::{adapted_model, figures, logits, predictions};

/// Evaluates an adapter, or a bare base model, on local data, without a coordinator
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client evaluate --model .rondo/models/minilm-l6 --adapter adapter --data reviews.tsv --predictions out.jsonl
  rondo-client evaluate --model .rondo/models/minilm-l6 --adapter adapter --data reviews.tsv --dataset reviews --held-out 0.1
  rondo-client evaluate --model smollm2 --task causal-lm --data dolly.json --data-option group=category
  rondo-client evaluate --model smollm2.gguf --adapter adapter --task exact-answer --data gsm8k.jsonl --limit 100 --json

Without an adapter (or with --adapter none) the bare base model is evaluated; a classifier then has the head beside the
weights, if the folder is a merged one, or else the head that a run of this --seed starts with.")]
pub struct EvaluateArgs {
    /// The base model: a Hugging Face folder (config.json,
    /// *.safetensors, tokenizer.json) or a .gguf file
    #[arg(long, value_name = "DIR|FILE.gguf")]
    pub model: PathBuf,
    /// Folder that `rondo-client train` or `rondo adapter export` wrote, or "none" [default: none]
    #[arg(long, value_name = "DIR|none")]
    pub adapter: Option<PathBuf>,
    /// The rows.
    #[command(flatten)]
    pub data: DataArgs,
    /// What is measured.
    #[command(flatten)]
    pub task: TaskArgs,
    /// The labels of a classification, in the order of the classifier's outputs [default: the
    /// adapter's, or those of a merged model's head]
    #[arg(long, value_delimiter = ',')]
    pub labels: Option<Vec<String>>,
    /// Evaluate only the rows that a client with this eval_fraction holds out [default: all rows].
    /// Which rows these are depends on the data set's name, so it takes --dataset with the name of
    /// the training: a run's data set, or "data" after `rondo-client train` without --dataset.
    /// Under another name, rows that were trained on would be evaluated
    #[arg(long, value_name = "FRACTION", requires = "dataset", value_parser = fraction)]
    pub held_out: Option<f64>,
    /// Evaluate at most so many rows, a random sample that is the same every time [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Seed of the head of a bare base
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write one JSON object per row: what the model made of it
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Write every logit of every row of causal-lm, with the token ids: texts.N.tokens and
    /// texts.N.logits [tokens, vocabulary]; at most 1024 MB, so take --limit
    #[arg(long, value_name = "FILE.safetensors")]
    pub logits: Option<PathBuf>,
    /// Number format that the model computes in
    #[arg(long, value_parser = ["f32", "bf16"], default_value = "f32")]
    pub dtype: String,
    /// What to compute on.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Evaluates and prints the outcome.
///
/// # Errors
/// An option does not fit the task, the model, the adapter or the data cannot be loaded, no rows
/// are left to evaluate, the trainer fails, or a file or the outcome cannot be written.
pub fn evaluate(args: &EvaluateArgs, out: &mut dyn Write) -> Result<(), OfflineError> {
    for (option, path) in [("--predictions", &args.predictions), ("--logits", &args.logits)] {
        path.as_ref().map_or(Ok(()), |path| check_file(option, path, &[&args.data.data, &args.model]))?;
    }
    let adapter = adapted_model::read_optional(args.adapter.as_ref())?;
    let head = trained_head(args, adapter.as_ref())?;
    let kind = kind(args, head.as_ref())?;
    if args.logits.is_some() && kind != TaskKind::CausalLm {
        let problem = "belongs to --task causal-lm; --predictions has the logits of a classification".to_owned();
        return Err(OfflineError::Value { option: "--logits", problem });
    }
    let mut trainer = args.device.trainer()?;
    let device = trainer.device();
    let loaded = trainer.model(&args.model, "", dtype(&args.dtype), Quantise::None)?;
    let model = &*loaded.model;
    let tokens = &mut loaded.tokens;
    let (session, task) = session(args, kind, adapter.as_ref(), head, model, device)?;

    let data = args.data.load(&task, args.held_out.unwrap_or(0.0))?;
    let part = if args.held_out.is_some() { data.held_out() } else { data.train() };
    if part.is_empty() {
        return Err(OfflineError::Value { option: "--held-out", problem: "leaves no rows to evaluate".to_owned() });
    }
    let Outcome { evaluation, verdicts } = {
        let mut bar = Bar::new("evaluating");
        tasks::evaluate(&session, tokens, &task, part, args.limit, &mut |progress| bar.show(progress))?
    };
    if let Some(path) = &args.predictions {
        predictions::write(path, &task, &verdicts)
            .map_err(|source| OfflineError::Write { path: path.clone(), source })?;
    }
    if let Some(path) = &args.logits {
        logits::write(path, &session, tokens, &task, part, args.limit)?;
    }
    if args.json {
        let mut report = figures::json(kind, &evaluation);
        report["adapter"] = json!(args.adapter);
        report["predictions"] = json!(args.predictions);
        report["logits"] = json!(args.logits);
        if kind == TaskKind::Classification {
            report["labels"] = json!(task.labels);
        }
        return Ok(writeln!(out, "{report}")?);
    }
    writeln!(out, "{}", figures::line(kind, &evaluation))?;
    Ok(figures::groups(kind, &evaluation, out)?)
}

/// The task said, or the one that is meant when nothing is said.
fn kind(args: &EvaluateArgs, head: Option<&Head>) -> Result<TaskKind, OfflineError> {
    args.task.kind(args.labels.is_some() || head.is_some())
}

/// The head that was trained: the adapter's; without an
/// adapter, the one that a merge put beside the weights.
fn trained_head(args: &EvaluateArgs, adapter: Option<&PeftAdapter>) -> Result<Option<Head>, OfflineError> {
    match adapter {
        Some(adapter) => Ok(adapter.head.clone()),
        None => Ok(Head::load(&args.model)?),
    }
}

/// The model with what is put on it, and the task it is asked.
fn session<'m>(
    args: &EvaluateArgs,
    kind: TaskKind,
    adapter: Option<&PeftAdapter>,
    trained: Option<Head>,
    model: &'m dyn Transformer,
    device: Device,
) -> Result<(Session<'m>, Task), OfflineError> {
    let limit = model.max_positions();
    let named = args.adapter.as_deref().zip(adapter);
    check_labels(args.labels.as_deref().unwrap_or_default())?;
    let mut task = args.task.task(kind, &args.data.dataset, args.labels.as_deref().unwrap_or_default(), limit);
    let session = if kind.needs_language_model() {
        if args.labels.is_some() {
            let problem = "belongs to --task classification alone".to_owned();
            return Err(OfflineError::Value { option: "--labels", problem });
        }
        adapted_model::language(model, device, &args.model, named)?
    } else {
        let head = match trained {
            Some(trained) => with_trained_head(args, trained, adapter.is_some(), &mut task)?,
            None if adapter.is_some() => {
                return Err(OfflineError::NoHead { dir: args.adapter.clone().unwrap_or_default() });
            }
            None => seeded_head(args, model, &task)?,
        };
        let mut session = match (Session::new(model, device, &head, task.pooling), named) {
            (Err(source), Some((dir, adapter))) => {
                return Err(adapted_model::another_base(&args.model, dir, adapter, source));
            }
            (session, _) => session?,
        };
        if let Some((dir, adapter)) = named {
            adapted_model::attach(&mut session, &args.model, dir, adapter)?;
        }
        session
    };
    if task.max_tokens > limit {
        let problem = format!("is {}, the model has {limit} positions", task.max_tokens);
        return Err(OfflineError::Value { option: "--max-tokens", problem });
    }
    Ok((session, task))
}

/// A trained head, with its labels, pooling and limit.
fn with_trained_head(
    args: &EvaluateArgs,
    head: Head,
    of_adapter: bool,
    task: &mut Task,
) -> Result<TensorSet, OfflineError> {
    if let Some(labels) = args.labels.as_ref().filter(|labels| !same_labels(labels, &head.labels)) {
        let whose = if of_adapter { "the adapter" } else { "the head beside the model" };
        let problem = format!("says {}, {whose} has {}", labels.join(","), head.labels.join(","));
        return Err(OfflineError::Value { option: "--labels", problem });
    }
    task.labels = head.labels;
    task.pooling = head.pooling;
    task.max_tokens = args.task.max_tokens.unwrap_or(head.max_tokens);
    Ok(TensorSet::from([(HEAD_WEIGHT.to_owned(), head.weight), (HEAD_BIAS.to_owned(), head.bias)]))
}

fn same_labels(some: &[String], others: &[String]) -> bool {
    some.iter().map(|label| trimmed(label)).eq(others.iter().map(|label| trimmed(label)))
}

/// The head that a run of this seed starts with.
fn seeded_head(args: &EvaluateArgs, model: &dyn Transformer, task: &Task) -> Result<TensorSet, OfflineError> {
    if task.labels.is_empty() {
        let problem = "is needed for the head of a bare base".to_owned();
        return Err(OfflineError::Value { option: "--labels", problem });
    }
    let hidden = model.hidden_size();
    let identity = Identity { seed: args.seed, name: HEAD_WEIGHT, fresh: None };
    let weight = seeded::uniform(identity, &[task.labels.len(), hidden], seeded::kaiming_bound(hidden));
    let bias = Tensor::zeros(&[task.labels.len()]);
    Ok(TensorSet::from([(HEAD_WEIGHT.to_owned(), weight), (HEAD_BIAS.to_owned(), bias)]))
}
