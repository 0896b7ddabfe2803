//! `rondo-client train`: one client's training, offline, with
//! the engine and the methods of a federated run.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use rondo_base::architecture;
use rondo_methods::{ExportInfo, Job, Registry};
use rondo_proto::run_file::{
    BaseRef, Dtype, HeadMode, Keep, MethodChoice, Pooling, Quantise, Rounds, RunFile, TaskKind, Train, Wire,
};
use rondo_proto::v1;
use rondo_trainer::LibtorchTrainer;
use rondo_trainer::train::local_simulation::{CLIENT, LocalSimulation};
use rondo_trainer_api::work::{LocalUpdate, Protection, Trainer, Work};
use serde_json::json;

use super::arguments::{DataArgs, DeviceArgs, at_least_one, option};
use super::error::OfflineError;
use super::figures;
use super::out_dir::check_empty;
use super::progress_bar::Bar;
use super::task::{TaskArgs, check_labels};

/// Trains an adapter on local data alone, without a coordinator
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client train --model .rondo/models/minilm-l6 --data reviews.tsv --labels negative,positive \\
      --method fed-sb --rank 32 --lr 2e-3 --steps 100 --out adapter
  rondo-client evaluate --model .rondo/models/minilm-l6 --adapter adapter --data reviews.tsv

  rondo-client train --model smollm2 --task causal-lm --data dolly.json --data-option group=category --method flora \\
      --rank 8 --targets q_proj,v_proj --batch 8 --steps 50 --out adapter

The folder that --out names loads with Python's PeftModel.from_pretrained.")]
pub struct TrainArgs {
    /// The base model: a Hugging Face folder (config.json,
    /// *.safetensors, tokenizer.json) or a .gguf file
    #[arg(long, value_name = "DIR|FILE.gguf")]
    pub model: PathBuf,
    /// The rows.
    #[command(flatten)]
    pub data: DataArgs,
    /// What is learnt.
    #[command(flatten)]
    pub task: TaskArgs,
    /// The labels of a classification, in the order of the classifier's outputs
    #[arg(long, value_delimiter = ',')]
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
    /// [default: the query and value projections]
    #[arg(long, value_delimiter = ',')]
    pub targets: Vec<String>,
    /// An option of the method, its value as in a run file; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = option)]
    pub options: Vec<(String, toml::Value)>,
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
    /// FedProx's weight of the pull towards the start; 0 = none
    #[arg(long, default_value_t = 0.0)]
    pub proximal: f64,
    /// Hold the base's linear layers in 4 bits
    #[arg(long, value_parser = ["none", "nf4"], default_value = "none")]
    pub quantise: String,
    /// Evaluate at most so many held-out rows [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Number format that the base model computes in
    #[arg(long, value_parser = ["f32", "bf16"], default_value = "f32")]
    pub dtype: String,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// What to compute on.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Folder to make for the adapter, in PEFT's format; it must be empty or not there yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Trains, evaluates before and after, and writes the adapter.
///
/// # Errors
/// The output folder is not empty or cannot be made, the options do not make a run on this model,
/// the data cannot be loaded, the training fails, or the adapter or the outcome cannot be written.
pub fn train(args: &TrainArgs, out: &mut dyn Write) -> Result<(), OfflineError> {
    check_empty(&args.out)?;
    let name = args.model.file_name().map_or_else(|| "base".to_owned(), |name| name.to_string_lossy().into_owned());
    let base = rondo_base::describe(&args.model, &name)?;
    let run = run_file(args, &base)?;
    run.check_base(&base)?;
    let job = Job::new(&Registry::builtin(), &run, &base)?;
    let data = args.data.load(&run.task, args.eval_fraction)?;
    // A folder that cannot be made is an error before the training.
    std::fs::create_dir_all(&args.out).map_err(|source| OfflineError::Write { path: args.out.clone(), source })?;
    let mut trainer = args.device.trainer()?;
    let mut simulation = LocalSimulation::new(job)?;
    let at_start = simulation.state(0)?;
    let mut work = Work {
        job: simulation.job().clone(),
        run: Arc::new(run),
        base: Arc::new(base),
        model_dir: args.model.clone(),
        data: Arc::new(data),
        client: CLIENT.to_owned(),
        round: 0,
        rank: args.rank,
        state: at_start,
        protection: Protection::None,
        evaluate_before: false,
        max_eval_examples: args.limit,
    };
    let warm_up = match simulation.job().needs_warm_up() {
        true => Some(warm_up(&mut trainer, &mut simulation, &work)?),
        false => None,
    };
    work.round = 1;
    work.state = simulation.state(1)?;
    let before = evaluation(&mut trainer, &work)?;
    let update = {
        let mut bar = Bar::new("training");
        trainer.train(&work, &mut |progress| bar.show(progress))?
    };
    simulation.publish(1, &update.tensors)?;
    work.state = simulation.state(2)?;
    let after = evaluation(&mut trainer, &work)?;
    let info = ExportInfo {
        base_model_name: name,
        provenance: BTreeMap::from([("trained".to_owned(), "offline, by one client, without privacy".to_owned())]),
        ..ExportInfo::default()
    };
    simulation.job().export_peft(&work.state, &args.out, &info)?;
    let report = TrainingReport { before, warm_up, update, after };
    print(args, work.run.task.kind, &report, out)
}

/// The round before the first one, which some methods need: what it took, in seconds.
fn warm_up(trainer: &mut LibtorchTrainer, simulation: &mut LocalSimulation, work: &Work) -> Result<f64, OfflineError> {
    let started = Instant::now();
    tracing::info!("the method's warm-up comes before the first step");
    let statistic = {
        let mut bar = Bar::new("warm-up");
        trainer.warm_up(work, &mut |progress| bar.show(progress))?
    };
    // Turning the statistic into factors takes its time too, and has no steps to show.
    let _bar = Bar::waiting("warm-up", "decomposing the targets' statistics");
    simulation.publish(0, &statistic.tensors)?;
    Ok(started.elapsed().as_secs_f64())
}

/// The outcome.
struct TrainingReport {
    before: Option<v1::Evaluation>,
    /// Seconds of the warm-up, where the method has one.
    warm_up: Option<f64>,
    update: LocalUpdate,
    after: Option<v1::Evaluation>,
}

/// The held-out examples' evaluation, if any are held out.
fn evaluation(trainer: &mut LibtorchTrainer, work: &Work) -> Result<Option<v1::Evaluation>, OfflineError> {
    if work.data.held_out().is_empty() {
        return Ok(None);
    }
    let mut bar = Bar::new("evaluating");
    Ok(Some(trainer.evaluate(work, &mut |progress| bar.show(progress))?))
}

fn print(args: &TrainArgs, kind: TaskKind, report: &TrainingReport, out: &mut dyn Write) -> Result<(), OfflineError> {
    let TrainingReport { before, warm_up, update, after } = report;
    let LocalUpdate { examples, train_loss, seconds, .. } = update;
    if args.json {
        let figures = |evaluation: &Option<v1::Evaluation>| evaluation.as_ref().map(|it| figures::json(kind, it));
        let printed = json!({
            "method": args.method, "rank": args.rank, "steps": args.steps, "examples": examples,
            "train_loss": train_loss, "train_seconds": seconds, "warm_up_seconds": warm_up,
            "before": figures(before), "after": figures(after), "out": args.out,
        });
        return Ok(writeln!(out, "{printed}")?);
    }
    for (when, evaluation) in [("before", before), ("after", after)] {
        if let Some(evaluation) = evaluation {
            writeln!(out, "{when:7} {}", figures::line(kind, evaluation))?;
        }
    }
    if let Some(evaluation) = after {
        figures::groups(kind, evaluation, out)?;
    }
    let all = seconds + warm_up.unwrap_or(0.0);
    let of_these = warm_up.map_or_else(String::new, |warm_up| format!(" ({warm_up:.1} s of them the warm-up)"));
    let steps = args.steps;
    writeln!(out, "trained {steps} steps on {examples} examples in {all:.1} s{of_these}, loss {train_loss:.4}")?;
    Ok(writeln!(out, "adapter in {}", args.out.display())?)
}

/// The options as a run of one client and one round, checked as every run file is.
fn run_file(args: &TrainArgs, base: &v1::BaseModel) -> Result<RunFile, OfflineError> {
    if !(0.0..1.0).contains(&args.eval_fraction) {
        let problem = format!("is {}; it takes 0 (hold none out) to below 1", args.eval_fraction);
        return Err(OfflineError::Value { option: "--eval-fraction", problem });
    }
    let kind = args.task.kind(!args.labels.is_empty())?;
    check_labels(&args.labels)?;
    if kind == TaskKind::Classification && args.labels.is_empty() {
        let problem = "is needed for a classification: its labels, in the order of the classifier's outputs".to_owned();
        return Err(OfflineError::Value { option: "--labels", problem });
    }
    let mut task = args.task.task(kind, &args.data.dataset, &args.labels, base.max_positions as usize);
    task.head = if args.freeze_head { HeadMode::Freeze } else { HeadMode::Train };
    task.pooling = if args.pooling == "cls" { Pooling::Cls } else { Pooling::Mean };
    let run = RunFile {
        name: "offline".to_owned(),
        base: BaseRef { model: base.name.clone(), digest: None },
        task,
        method: MethodChoice {
            id: args.method.clone(),
            rank: args.rank,
            alpha: args.alpha,
            targets: targets(args, base)?,
            options: args.options.iter().cloned().collect(),
        },
        train: Train {
            local_steps: args.steps,
            batch: args.batch,
            lr: args.lr,
            weight_decay: args.weight_decay,
            max_grad_norm: args.max_grad_norm,
            proximal: args.proximal,
            quantise: if args.quantise == "nf4" { Quantise::Nf4 } else { Quantise::None },
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
            weighting: None,
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

/// The targets said, or the model's query and value projections.
fn targets(args: &TrainArgs, base: &v1::BaseModel) -> Result<Vec<String>, OfflineError> {
    if !args.targets.is_empty() {
        return Ok(args.targets.clone());
    }
    let names = architecture::find(&base.architecture).map(|found| found.usual_targets).unwrap_or_default();
    let has = |name: &&str| base.linears.iter().any(|linear| linear.name.rsplit('.').next() == Some(*name));
    if names.is_empty() || !names.iter().all(has) {
        return Err(OfflineError::Value {
            option: "--targets",
            problem: format!("is needed: the linear layers of {} have names of their own (rondo base show)", base.name),
        });
    }
    Ok(names.iter().map(|name| (*name).to_owned()).collect())
}
