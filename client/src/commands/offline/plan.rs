//! `rondo-client plan`: how much memory a training step would take of this machine, predicted from
//! file headers alone, and measured on request.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rondo_methods::{Job, Registry};
use rondo_proto::run_file::{Quantise, RunFile};
use rondo_trainer::measure::{self, Measured};
use rondo_trainer::models::PackedWeights;
use rondo_trainer_api::limits::{Checkpoint, Limits};
use rondo_trainer_api::memory::{self, MemoryPhase, ModelSizes, StepChoice, Workload};
use serde_json::json;

use super::arguments::option;
use super::error::OfflineError;

/// Predicts how much memory a training step takes and how this machine would carry it out
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  rondo-client plan --model .rondo/models/minilm-l6 --method fed-sb --rank 64 --targets query,value --batch 32 \\
      --max-tokens 64
  rondo-client plan --model smollm2.gguf --method flora --rank 16 --targets q_proj,v_proj --batch 4 \\
      --max-tokens 128 --compare

Without --measure nothing is loaded: the sizes stand in config.json and in the headers of the weight files.")]
pub struct PlanArgs {
    /// The base model: a Hugging Face folder or a .gguf file
    #[arg(long, value_name = "DIR|FILE")]
    pub model: PathBuf,
    /// The method (rondo method list)
    #[arg(long, default_value = "ffa-lora")]
    pub method: String,
    /// Rank of the adapter
    #[arg(long, default_value_t = 16)]
    pub rank: usize,
    /// Linear layers to adapt: the last part of the name, or any dotted suffix of it
    #[arg(long, value_delimiter = ',', required = true)]
    pub targets: Vec<String>,
    /// An option of the method, its value as in a run file; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = option)]
    pub options: Vec<(String, toml::Value)>,
    /// Examples per step
    #[arg(long, default_value_t = 4)]
    pub batch: u32,
    /// Longest input in tokens; every example is counted as that long
    #[arg(long, default_value_t = 128)]
    pub max_tokens: usize,
    /// Most examples at once, as `limits.micro_batch`; 0 = as the memory allows
    #[arg(long, default_value_t = 0)]
    pub micro_batch: u32,
    /// As `limits.checkpoint`
    #[arg(long, value_enum, default_value = "auto")]
    pub checkpoint: CheckpointArg,
    /// As `limits.memory_mb`; 0 = what this machine has available
    #[arg(long, default_value_t = 0)]
    pub memory_mb: u32,
    /// Number format that the base model computes in
    #[arg(long, value_parser = ["f32", "bf16"], default_value = "f32")]
    pub dtype: String,
    /// How the base's linear layers are held
    #[arg(long, value_parser = ["none", "nf4"], default_value = "none")]
    pub quantise: String,
    /// Also take one step on random tokens, in a process of
    /// its own, and set its peak beside the prediction
    #[arg(long)]
    pub measure: bool,
    /// Also take the same step, on the same values, with the base as plain numbers and one tape
    /// over all layers, and set both beside each other
    #[arg(long)]
    pub compare: bool,
    /// Hold a quantised base (GGUF blocks, NF4) as plain numbers of the same values
    #[arg(long)]
    pub unpack: bool,
    /// CPU threads of a measured step; 0 = one per core
    #[arg(long, default_value_t = 0)]
    pub threads: u32,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
    /// The process that takes the step: prints what it saw as JSON.
    #[arg(long, hide = true, value_enum)]
    pub one_step: Option<Step>,
}

/// Which step a process of its own takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// As the arguments say.
    Asked,
    /// With the base as plain numbers and one tape over all layers.
    Plain,
}

/// `auto`, `on` or `off`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum CheckpointArg {
    /// Where memory asks for it
    Auto,
    /// Always
    On,
    /// Never, but on a quantised base
    Off,
}

/// The prediction of a step and, if asked for, its measurement.
struct StepPlan {
    workload: Workload,
    choice: StepChoice,
    measured: Option<Measured>,
}

/// Prints the plan.
///
/// # Errors
/// The options do not make a run on this model, no step fits the memory, the measured step fails,
/// or the plan cannot be printed.
pub fn plan(args: &PlanArgs, out: &mut dyn Write) -> Result<(), OfflineError> {
    let step = |step| -> Result<_, OfflineError> {
        let args = of_step(args, step);
        let (run, job, workload) = resolve(&args)?;
        let choice = memory::choose(&workload, &limits(&args), memory::machine::room())?;
        Ok((args, run, job, workload, choice))
    };
    if let Some(taken) = args.one_step {
        let (args, run, job, workload, choice) = step(taken)?;
        let packed = if args.unpack { PackedWeights::Unpack } else { PackedWeights::Keep };
        let measured = measure::one_step(&args.model, &run, &job, &workload, &choice, packed, args.threads)?;
        return Ok(writeln!(out, "{}", json!(measured))?);
    }
    let planned = |which| -> Result<StepPlan, OfflineError> {
        let (_, _, _, workload, choice) = step(which)?;
        let measured = if args.measure || args.compare { Some(measured(which)?) } else { None };
        Ok(StepPlan { workload, choice, measured })
    };
    let asked = planned(Step::Asked)?;
    let plain = if args.compare { Some(planned(Step::Plain)?) } else { None };
    print(args, &asked, plain.as_ref(), out)
}

/// The arguments that mean this step.
fn of_step(args: &PlanArgs, step: Step) -> PlanArgs {
    match step {
        Step::Asked => args.clone(),
        Step::Plain => PlanArgs { unpack: true, checkpoint: CheckpointArg::Off, ..args.clone() },
    }
}

fn print(args: &PlanArgs, asked: &StepPlan, plain: Option<&StepPlan>, out: &mut dyn Write) -> Result<(), OfflineError> {
    let StepChoice { mode, estimate } = &asked.choice;
    let available = memory::machine::room();
    if args.json {
        let plain = plain.map(|plain| json!({ "peak": plain.choice.estimate.peak, "measured": plain.measured }));
        let printed = json!({
            "checkpoint": mode.checkpoint, "micro_batch": mode.micro_batch, "peak": estimate.peak, "parts": estimate.parts,
            "available": available, "measured": asked.measured, "plain": plain,
        });
        return Ok(writeln!(out, "{printed}")?);
    }
    for part in &estimate.parts {
        let when = match part.phase {
            MemoryPhase::Always => "",
            MemoryPhase::Layers => "  while the layers run backward",
            MemoryPhase::Loss => "  while the loss is taken",
        };
        writeln!(out, "{:34} {:>9.1} MB{when}", part.name, megabytes(part.bytes))?;
    }
    print_peak(asked, out)?;
    if let Some(plain) = plain {
        writeln!(out, "\nthe same step, the base as plain numbers, one tape over all layers:")?;
        print_peak(plain, out)?;
        if let (Some(asked), Some(plain)) = (&asked.measured, &plain.measured) {
            let share = asked.peak as f64 / plain.peak as f64;
            let off = (asked.loss - plain.loss).abs();
            writeln!(out, "{:34} {share:>9.3}     losses differ by {off:.1e}\n", "measured peaks, share")?;
        }
    }
    let batch = asked.workload.batch;
    let how = if mode.checkpoint { "checkpointed: each layer runs twice" } else { "plain: one tape over all layers" };
    let split = match mode.micro_batch == batch {
        true => format!("all {batch} texts at once"),
        false => format!("{} of {batch} texts at once", mode.micro_batch),
    };
    let room = match (args.memory_mb, available) {
        (0, Some(bytes)) => format!("{:.0} MB available", megabytes(bytes)),
        (0, None) => "this system does not say what is available".to_owned(),
        (limit, _) => format!("limited to {limit} MB"),
    };
    Ok(writeln!(out, "{how}; {split} ({room})")?)
}

fn print_peak(plan: &StepPlan, out: &mut dyn Write) -> Result<(), OfflineError> {
    let predicted = plan.choice.estimate.peak;
    writeln!(out, "{:34} {:>9.1} MB", "predicted peak", megabytes(predicted))?;
    if let Some(Measured { peak, loss, seconds, .. }) = &plan.measured {
        let off = 100.0 * (predicted as f64 / *peak as f64 - 1.0);
        writeln!(out, "{:34} {:>9.1} MB  (the prediction is {off:+.1} % off)", "measured peak", megabytes(*peak))?;
        writeln!(out, "one step took {seconds:.1} s, loss {loss:.6}")?;
    }
    Ok(())
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The options as a run, resolved against what the model's headers say.
fn resolve(args: &PlanArgs) -> Result<(RunFile, Job, Workload), OfflineError> {
    let mut sizes = ModelSizes::read(&args.model)?;
    if args.unpack {
        sizes.unpack();
    }
    let task = match sizes.is_language() {
        true => "kind = \"causal-lm\"",
        false => "kind = \"classification\"\nlabels = [\"0\", \"1\"]",
    };
    let options: toml::Table = args.options.iter().cloned().collect();
    let PlanArgs { method, rank, targets, batch, max_tokens, dtype, quantise, .. } = args;
    let text = format!(
        "name = \"plan\"\nbase = {{ model = \"base\" }}\n\
         [task]\n{task}\ndataset = \"random\"\nmax_tokens = {max_tokens}\n\
         [method]\nid = {method:?}\nrank = {rank}\ntargets = {targets:?}\n{options}\n\
         [train]\nlocal_steps = 1\nbatch = {batch}\nlr = 1e-3\ndtype = {dtype:?}\nquantise = {quantise:?}\n\
         [rounds]\ncount = 1\ncohort = 1\nquorum = 1\n"
    );
    let run = RunFile::parse(&text)?;
    let base = sizes.base("base");
    run.check_base(&base)?;
    let job = Job::new(&Registry::builtin(), &run, &base)?;
    let mut workload = Workload::new(sizes, &run, &job, job.rank());
    if args.unpack {
        workload.quantise = Quantise::None;
    }
    Ok((run, job, workload))
}

fn limits(args: &PlanArgs) -> Limits {
    let checkpoint = match args.checkpoint {
        CheckpointArg::Auto => Checkpoint::Auto,
        CheckpointArg::On => Checkpoint::On,
        CheckpointArg::Off => Checkpoint::Off,
    };
    Limits { memory_mb: args.memory_mb, micro_batch: args.micro_batch, checkpoint, ..Limits::default() }
}

/// Takes the step in a process that does nothing else, so that its peak is the step's.
fn measured(step: Step) -> Result<Measured, OfflineError> {
    let failed = |problem: String| OfflineError::Measure { problem };
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let output = std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg("--one-step")
        .arg(match step {
            Step::Asked => "asked",
            Step::Plain => "plain",
        })
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("it ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}
