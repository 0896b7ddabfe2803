//! `rondo-client train`: one client's training, offline, with the engine and the methods of a federated run.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rondo_methods::{ExportInfo, Job, Registry};
use rondo_proto::run_file::{
    AnswerRule, BaseRef, Dtype, HeadMode, Keep, LossOn, MethodChoice, OptionScore, Pooling, Quantise, Rounds, RunFile,
    Task, TaskKind, Template, Train, Weighting, Wire,
};
use rondo_proto::{base, v1};
use serde_json::json;

use super::offline::{Bar, DataArgs, DeviceArgs, OfflineError};
use crate::trainer::LibtorchTrainer;
use crate::trainer::solo::{CLIENT, Solo};
use crate::work::{LocalUpdate, Trainer, Work};

/// Trains an adapter on local data alone, without a coordinator
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client train --model .rondo/models/minilm-l6 --data reviews.tsv --labels negative,positive \\
      --method fed-sb --rank 32 --lr 2e-3 --steps 100 --out adapter
  rondo-client evaluate --model .rondo/models/minilm-l6 --adapter adapter --data reviews.tsv

The folder that --out names loads with Python's PeftModel.from_pretrained.")]
pub struct TrainArgs {
    /// Folder of the base model: config.json, *.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The texts.
    #[command(flatten)]
    pub data: DataArgs,
    /// The labels, in the order of the classifier's outputs
    #[arg(long, value_delimiter = ',', required = true)]
    pub labels: Vec<String>,
    /// Share of the rows held out and evaluated before and after training
    #[arg(long, default_value_t = 0.1)]
    pub eval_fraction: f64,
    /// The method (rondo method list)
    #[arg(long, default_value = "fed-sb")]
    pub method: String,
    /// Rank of the adapter
    #[arg(long, default_value_t = 32)]
    pub rank: usize,
    /// LoRA's alpha; the scale is alpha / rank [default: the rank]
    #[arg(long)]
    pub alpha: Option<f64>,
    /// Linear layers to adapt: the last part of the name, or any dotted suffix of it
    #[arg(long, value_delimiter = ',', default_value = "query,value")]
    pub targets: Vec<String>,
    /// An option of the method, its value as in a run file; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = option)]
    pub options: Vec<(String, toml::Value)>,
    /// Longest input in tokens
    #[arg(long, default_value_t = 64)]
    pub max_tokens: usize,
    /// How token states become one vector
    #[arg(long, value_parser = ["mean", "cls"], default_value = "mean")]
    pub pooling: String,
    /// Keep the classifier head as seeded
    #[arg(long)]
    pub freeze_head: bool,
    /// Optimiser steps
    #[arg(long, default_value_t = 100)]
    pub steps: u32,
    /// Examples per step
    #[arg(long, default_value_t = 32)]
    pub batch: u32,
    /// Learning rate of AdamW
    #[arg(long, default_value_t = 1e-3)]
    pub lr: f64,
    /// Decoupled weight decay
    #[arg(long, default_value_t = 0.0)]
    pub weight_decay: f64,
    /// Limit of the gradients' norm over all trained tensors [default: none]
    #[arg(long)]
    pub max_grad_norm: Option<f64>,
    /// Number format that the base model computes in
    #[arg(long, value_parser = ["f32", "bf16"], default_value = "f32")]
    pub dtype: String,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// What to compute on.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Folder to write the adapter to, in PEFT's format
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Trains, evaluates before and after, and writes the adapter.
pub fn train(args: &TrainArgs, out: &mut dyn Write) -> Result<(), OfflineError> {
    let name = args.model.file_name().map_or_else(|| "base".to_owned(), |name| name.to_string_lossy().into_owned());
    let run = run_file(args, &name)?;
    let base = base::describe(&args.model, &name)?;
    run.check_base(&base)?;
    let job = Job::new(&Registry::builtin(), &run, &base)?;
    let data = args.data.load(&args.labels, args.eval_fraction)?;
    let mut trainer = args.device.trainer()?;
    let mut solo = Solo::new(job)?;
    let at_start = solo.state(0)?;
    let mut work = Work {
        job: solo.job().clone(),
        run: Arc::new(run),
        base: Arc::new(base),
        model_dir: args.model.clone(),
        data: Arc::new(data),
        client: CLIENT.to_owned(),
        round: 0,
        rank: args.rank,
        state: at_start,
        evaluate_before: false,
        max_eval_examples: None,
    };
    if solo.job().needs_warm_up() {
        let mut bar = Bar::new("warm-up");
        let statistic = trainer.warm_up(&work, &mut |progress| bar.show(progress))?;
        solo.publish(0, &statistic.tensors)?;
    }
    (work.round, work.state) = (1, solo.state(1)?);
    let before = evaluation(&mut trainer, &work)?;
    let update = {
        let mut bar = Bar::new("training");
        trainer.train(&work, &mut |progress| bar.show(progress))?
    };
    solo.publish(1, &update.tensors)?;
    work.state = solo.state(2)?;
    let after = evaluation(&mut trainer, &work)?;
    let info = ExportInfo {
        base_model_name: name,
        provenance: BTreeMap::from([("trained".to_owned(), "offline, by one client, without privacy".to_owned())]),
        ..ExportInfo::default()
    };
    solo.job().export_peft(&work.state, &args.out, &info)?;
    tell(args, before.as_ref(), &update, after.as_ref(), out)
}

/// The held-out examples' evaluation, if any are held out.
fn evaluation(trainer: &mut LibtorchTrainer, work: &Work) -> Result<Option<v1::Evaluation>, OfflineError> {
    if work.data.held_out().is_empty() {
        return Ok(None);
    }
    let mut bar = Bar::new("evaluating");
    Ok(Some(trainer.evaluate(work, &mut |progress| bar.show(progress))?))
}

fn tell(
    args: &TrainArgs,
    before: Option<&v1::Evaluation>,
    update: &LocalUpdate,
    after: Option<&v1::Evaluation>,
    out: &mut dyn Write,
) -> Result<(), OfflineError> {
    if args.json {
        let told = json!({
            "method": args.method, "rank": args.rank, "steps": args.steps, "examples": update.examples,
            "train_loss": update.train_loss, "train_seconds": update.seconds,
            "before": before, "after": after, "out": args.out,
        });
        return Ok(writeln!(out, "{told}")?);
    }
    for (when, evaluation) in [("before", before), ("after", after)] {
        if let Some(v1::Evaluation { loss, accuracy, examples, .. }) = evaluation {
            writeln!(out, "{when:7} accuracy {accuracy:.4}, loss {loss:.4} on {examples} held-out examples")?;
        }
    }
    let LocalUpdate { examples, train_loss, seconds, .. } = update;
    writeln!(out, "trained {} steps on {examples} examples in {seconds:.1} s, loss {train_loss:.4}", args.steps)?;
    Ok(writeln!(out, "adapter in {}", args.out.display())?)
}

/// The options as a run of one client and one round, checked as every run file is.
fn run_file(args: &TrainArgs, base: &str) -> Result<RunFile, OfflineError> {
    if !(0.0..1.0).contains(&args.eval_fraction) {
        let problem = format!("is {}; it takes 0 (hold none out) to below 1", args.eval_fraction);
        return Err(OfflineError::Value { option: "--eval-fraction", problem });
    }
    let run = RunFile {
        name: "offline".to_owned(),
        base: BaseRef { model: base.to_owned(), digest: None },
        task: Task {
            kind: TaskKind::Classification,
            dataset: args.data.dataset.clone(),
            labels: args.labels.clone(),
            max_tokens: args.max_tokens,
            head: if args.freeze_head { HeadMode::Freeze } else { HeadMode::Train },
            pooling: if args.pooling == "cls" { Pooling::Cls } else { Pooling::Mean },
            loss_on: LossOn::default(),
            template: Template::default(),
            option_score: OptionScore::default(),
            answer: AnswerRule::default(),
            max_new_tokens: 128,
        },
        method: MethodChoice {
            id: args.method.clone(),
            rank: args.rank,
            alpha: args.alpha,
            targets: args.targets.clone(),
            options: args.options.iter().cloned().collect(),
        },
        train: Train {
            local_steps: args.steps,
            batch: args.batch,
            lr: args.lr,
            weight_decay: args.weight_decay,
            max_grad_norm: args.max_grad_norm,
            proximal: 0.0,
            quantise: Quantise::None,
            dtype: if args.dtype == "bf16" { Dtype::Bf16 } else { Dtype::F32 },
            seed: args.seed,
        },
        rounds: Rounds {
            count: 1,
            cohort: 1,
            quorum: 1,
            over_select: 0,
            deadline_s: 1,
            grace_s: 0,
            eval_every: 1,
            weighting: Weighting::Examples,
            max_update_norm: None,
            max_attempts: 1,
            keep: Keep::Last,
            rollback: None,
        },
        server: None,
        evaluation: None,
        privacy: None,
        wire: Wire::default(),
    };
    let text = toml::to_string(&run).map_err(|error| OfflineError::Value {
        option: "the options",
        problem: format!("make no run file: {error}"),
    })?;
    Ok(RunFile::parse(&text)?)
}

/// `KEY=VALUE`; a value that is no TOML is a word, which on a command line needs no quotes.
fn option(text: &str) -> Result<(String, toml::Value), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok().and_then(|mut t| t.remove("value"));
    Ok((key.to_owned(), parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()))))
}
