//! `rondo-client evaluate`: accuracy, loss and logits of an exported adapter, offline.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rondo_methods::export::peft::{self, PeftAdapter};
use rondo_methods::init::seeded::{self, Identity};
use rondo_methods::job::{HEAD_BIAS, HEAD_WEIGHT};
use rondo_methods::{Delta, Tensor, TensorSet};
use rondo_proto::run_file::{Dtype, Pooling};
use serde_json::json;

use super::offline::{Bar, DataArgs, DeviceArgs, OfflineError};
use crate::data::Example;
use crate::trainer::LibtorchTrainer;
use crate::trainer::classify::{Score, answer};
use crate::trainer::models::Transformer;
use crate::trainer::session::Session;
use crate::work::Progress;

/// Evaluates an adapter on labelled texts, without a coordinator
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client evaluate --model .rondo/models/minilm-l6 --adapter adapter --data reviews.tsv --predictions out.jsonl
  rondo-client evaluate --model .rondo/models/minilm-l6 --adapter adapter --data reviews.tsv --dataset reviews --held-out 0.1

With --adapter none the bare base model is evaluated under the head that a run of this --seed starts with.")]
pub struct EvaluateArgs {
    /// Folder of the base model: config.json, *.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Folder that `rondo-client train` or `rondo adapter export` wrote, or "none"
    #[arg(long, value_name = "DIR|none")]
    pub adapter: PathBuf,
    /// The texts.
    #[command(flatten)]
    pub data: DataArgs,
    /// The labels, in the order of the classifier's outputs [default: the adapter's]
    #[arg(long, value_delimiter = ',', required_if_eq("adapter", "none"))]
    pub labels: Option<Vec<String>>,
    /// Evaluate only the rows that a client with this eval_fraction holds out [default: all rows]. Which rows these are
    /// depends on the data set's name, so it takes --dataset with the name of the training: a run's data set, or "data"
    /// after `rondo-client train` without --dataset. Under another name, rows that were trained on would be evaluated
    #[arg(long, value_name = "FRACTION", requires = "dataset")]
    pub held_out: Option<f64>,
    /// Longest input in tokens [default: the adapter's, or 64]
    #[arg(long)]
    pub max_tokens: Option<usize>,
    /// Seed of the head with --adapter none
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write one JSON object per text: text, label, predicted, logits
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// What to compute on.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Longest input where nothing says it.
const DEFAULT_TOKENS: usize = 64;

/// What is evaluated: a head, and an adapter unless it is the bare base.
struct Subject {
    adapter: Option<PeftAdapter>,
    head: TensorSet,
    labels: Vec<String>,
    pooling: Pooling,
    max_tokens: usize,
}

/// Evaluates and tells the outcome.
pub fn evaluate(args: &EvaluateArgs, out: &mut dyn Write) -> Result<(), OfflineError> {
    let mut trainer = args.device.trainer()?;
    let device = trainer.device();
    let subject = subject(args, &*trainer.model(&args.model, "", Dtype::F32)?.model)?;
    let data = args.data.load(&subject.labels, args.held_out.unwrap_or(0.0))?;
    let part = if args.held_out.is_some() { data.held_out() } else { data.train() };
    let examples = &*part.all()?;
    if examples.is_empty() {
        return Err(OfflineError::Value { option: "--held-out", problem: "leaves no rows to evaluate".to_owned() });
    }
    let logits = predict(&mut trainer, args, &subject, examples, device)?;
    let mut score = Score::default();
    for (logits, example) in logits.iter().zip(examples) {
        score.add(logits, example.label() as usize);
    }
    if let Some(path) = &args.predictions {
        write_predictions(path, &subject.labels, examples, &logits)
            .map_err(|source| OfflineError::Write { path: path.clone(), source })?;
    }
    let evaluation = score.evaluation();
    if args.json {
        let told = json!({
            "accuracy": evaluation.accuracy, "loss": evaluation.loss, "examples": evaluation.examples,
            "labels": subject.labels, "adapter": args.adapter, "predictions": args.predictions,
        });
        return Ok(writeln!(out, "{told}")?);
    }
    let rondo_proto::v1::Evaluation { loss, accuracy, examples, .. } = evaluation;
    Ok(writeln!(out, "accuracy {accuracy:.4}, loss {loss:.4} on {examples} examples")?)
}

fn subject(args: &EvaluateArgs, model: &dyn Transformer) -> Result<Subject, OfflineError> {
    if args.adapter.as_os_str() == "none" {
        let labels = args.labels.clone().unwrap_or_default();
        let hidden = model.hidden_size();
        let identity = Identity { seed: args.seed, name: HEAD_WEIGHT, fresh: None };
        let weight = seeded::uniform(identity, &[labels.len(), hidden], seeded::kaiming_bound(hidden));
        let bias = Tensor::zeros(&[labels.len()]);
        let head = TensorSet::from([(HEAD_WEIGHT.to_owned(), weight), (HEAD_BIAS.to_owned(), bias)]);
        let max_tokens = args.max_tokens.unwrap_or(DEFAULT_TOKENS.min(model.max_positions()));
        return Ok(Subject { adapter: None, head, labels, pooling: Pooling::Mean, max_tokens });
    }
    let mut adapter = peft::load(&args.adapter)?;
    let head = adapter.head.take().ok_or_else(|| OfflineError::NoHead { dir: args.adapter.clone() })?;
    if let Some(labels) = args.labels.as_ref().filter(|labels| **labels != head.labels) {
        let problem = format!("says {}, the adapter has {}", labels.join(","), head.labels.join(","));
        return Err(OfflineError::Value { option: "--labels", problem });
    }
    Ok(Subject {
        adapter: Some(adapter),
        head: TensorSet::from([(HEAD_WEIGHT.to_owned(), head.weight), (HEAD_BIAS.to_owned(), head.bias)]),
        labels: head.labels,
        pooling: head.pooling,
        max_tokens: args.max_tokens.unwrap_or(head.max_tokens),
    })
}

/// Logits of each example, in their order.
fn predict(
    trainer: &mut LibtorchTrainer,
    args: &EvaluateArgs,
    subject: &Subject,
    examples: &[Example],
    device: tch::Device,
) -> Result<Vec<Vec<f32>>, OfflineError> {
    let loaded = trainer.model(&args.model, "", Dtype::F32)?;
    let limit = loaded.model.max_positions();
    if subject.max_tokens > limit {
        let problem = format!("is {}, the model has {limit} positions", subject.max_tokens);
        return Err(OfflineError::Value { option: "--max-tokens", problem });
    }
    let encoded = loaded.tokens.encode(examples.iter().map(Example::text), subject.max_tokens)?;
    let mut session = Session::new(&*loaded.model, device, &subject.head, subject.pooling)?;
    for target in subject.adapter.iter().flat_map(|adapter| &adapter.targets) {
        let parts = TensorSet::from([("lora_A".to_owned(), target.a.clone()), ("lora_B".to_owned(), target.b.clone())]);
        let delta = Delta::product(&["lora_B", "lora_A"]).scaled(target.scale);
        session.attach(&target.name, &delta, &parts, &Default::default())?;
    }
    let (mut bar, steps) = (Bar::new("evaluating"), examples.len() as u32);
    Ok(session.predict(&encoded, examples.len(), &mut |done| {
        let _ = bar.show(Progress { step: done as u32, steps, loss: 0.0 });
        Ok(())
    })?)
}

fn write_predictions(
    path: &Path,
    labels: &[String],
    examples: &[Example],
    logits: &[Vec<f32>],
) -> Result<(), std::io::Error> {
    let mut file = BufWriter::new(File::create(path)?);
    for (example, logits) in examples.iter().zip(logits) {
        let row = json!({
            "text": example.text(), "label": labels[example.label() as usize],
            "predicted": labels[answer(logits)], "logits": logits,
        });
        writeln!(file, "{row}")?;
    }
    file.flush()
}
