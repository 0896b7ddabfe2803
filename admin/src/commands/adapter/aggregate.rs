//! `rondo adapter aggregate`: a method's law on update files, without a coordinator.

use std::path::{Path, PathBuf};

use clap::Args;
use rondo_methods::head::{HEAD_BIAS, HEAD_WEIGHT};
use rondo_methods::law::shares;
use rondo_methods::{Contribution, Dim, LawKind, Method, OfflineInput, Registry, TensorSpec, aggregate_files};
use rondo_proto::manifest::{self, TensorEntry};
use rondo_proto::nearest::nearest;
use serde::Serialize;

use crate::context::Context;
use crate::error::CliError;
use crate::output::{facts, table};
use crate::shapes;
use crate::text::{relative_error, size};

/// The owner of the classifier head's tensors.
const HEAD: &str = "head";

/// What to aggregate, and how.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rondo adapter aggregate --method flora --weights 1,3 a.safetensors b.safetensors --out out.safetensors\n  rondo adapter aggregate --method fed-sb --frozen frozen.safetensors a.safetensors b.safetensors --out out.safetensors"
)]
pub struct AggregateArgs {
    /// Method whose law is used
    #[arg(long, value_name = "ID")]
    method: String,
    /// One weight per file, such as example counts; they need not sum to 1 [default: all alike]
    #[arg(long, value_delimiter = ',', value_name = "W,..")]
    weights: Vec<f64>,
    /// One rank per file, checked against the tensors [default: read off the tensors]
    #[arg(long, value_delimiter = ',', value_name = "R,..")]
    ranks: Vec<usize>,
    /// LoRA's alpha; the scale is alpha / largest rank, of flora and flexlora alpha / the file's
    /// own [default: the largest rank]
    #[arg(long)]
    alpha: Option<f64>,
    /// File with the tensors that all clients hold frozen
    #[arg(long, value_name = "FILE")]
    frozen: Option<PathBuf>,
    /// Published file that the clients started from; for files of lower
    /// ranks that hold leading blocks of its tensors
    #[arg(long, value_name = "FILE")]
    global: Option<PathBuf>,
    /// The update files, in the order in which they are taken
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Serialize)]
struct Aggregated {
    method: String,
    law: LawKind,
    exactness: String,
    out: PathBuf,
    bytes: u64,
    inputs: Vec<Input>,
    targets: Vec<String>,
    /// ||aggregate - dense weighted mean|| / ||dense weighted mean|| over all targets, where it can be known.
    aggregation_error: Option<f64>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Input {
    file: PathBuf,
    weight: f64,
    rank: usize,
}

/// The command's long help; what it says of the methods comes from the registry.
pub(super) fn about() -> String {
    let registry = Registry::builtin();
    let methods: Vec<String> = registry.iter().map(parts_in_words).collect();
    format!(
        "Aggregates update files offline with any method's law\n\n\
         Tensors are named <target>.<part>, for example encoder.layer.0.attention.self.query.lora_B. {HEAD_WEIGHT} and \
         {HEAD_BIAS} are averaged. The parts of each method are:\n\n{}\n\n\
         The aggregation error is reported when all factors of the change are at hand: the frozen ones may stand in the update \
         files or in one file named with --frozen. `rondo method show ID` says more about a method.",
        methods.join("\n")
    )
}

/// "fed-sb: lora_R [r, r]; frozen lora_B [out, r], lora_A [r, in]".
fn parts_in_words(method: &dyn Method) -> String {
    let Ok(parts) = shapes::tensors(method) else { return format!("  {}", method.id()) };
    let list = |sent: bool| {
        let parts = parts.iter().filter(|part| part.travel.goes_up() == sent);
        parts.map(|part| format!("{} {}", part.part, part.dims_in_words())).collect::<Vec<_>>().join(", ")
    };
    let frozen = list(false);
    let frozen = if frozen.is_empty() { frozen } else { format!("; frozen {frozen}") };
    format!("  {}: {}{frozen}", method.id(), list(true))
}

/// Reads, aggregates, writes.
pub(super) fn run(args: AggregateArgs, context: &mut Context) -> Result<(), CliError> {
    let registry = Registry::builtin();
    let method = registry.get(&args.method)?;
    let one_each = |name: &str, count: usize| match count {
        0 => Ok(()),
        count if count == args.files.len() => Ok(()),
        count => Err(CliError::usage(format!("--{name} has {count} values for {} files", args.files.len()))),
    };
    one_each("weights", args.weights.len())?;
    one_each("ranks", args.ranks.len())?;
    let given = if args.weights.is_empty() { vec![1.0; args.files.len()] } else { args.weights.clone() };
    let weights = shares(&given).map_err(|error| CliError::usage(error.to_string()))?;
    let files = args.files.iter().map(|path| Header::read(path)).collect::<Result<Vec<_>, _>>()?;
    let parts = shapes::tensors(method)?;
    check_names(&files, &parts)?;
    let ranks = ranks(&files, &parts, &args.ranks)?;
    let config = shapes::config(method, ranks.iter().copied().max().unwrap_or(1), args.alpha)?;
    if !method.mixed_ranks(&config) && ranks.windows(2).any(|pair| pair[0] != pair[1]) {
        let problem = format!("ranks {ranks:?} differ, and method `{}` cannot mix ranks", method.id());
        return Err(CliError::failed(problem).hint("`rondo method list` shows which methods can"));
    }
    check_shapes(&files, &parts)?;
    method.validate(&config, &[])?;

    let update = |((path, weight), rank): ((&PathBuf, &f64), &usize)| Contribution {
        client: path.display().to_string(),
        weight: *weight,
        rank: *rank,
        path: path.clone(),
    };
    let updates: Vec<Contribution> = args.files.iter().zip(&weights).zip(&ranks).map(update).collect();
    let read = args.files.iter().chain(&args.frozen).chain(&args.global);
    let out = std::fs::canonicalize(&args.out).ok();
    if let Some(file) = read.into_iter().find(|file| out.is_some() && std::fs::canonicalize(file).ok() == out) {
        let message = format!("--out {} is one of the files that are read; it would be overwritten", file.display());
        return Err(CliError::usage(message).hint("name a file that is not there yet"));
    }
    let done = aggregate_files(&OfflineInput {
        method,
        config: &config,
        updates: &updates,
        frozen: args.frozen.as_deref(),
        global: args.global.as_deref(),
        out: &args.out,
    })?;
    let note = "no aggregation error: the files do not hold all factors of the change, or it is zero; see --frozen";
    let aggregated = Aggregated {
        method: method.id().to_owned(),
        law: method.law(&config),
        exactness: method.exactness(&config, 1).to_string(),
        out: args.out,
        bytes: done.bytes,
        inputs: updates
            .into_iter()
            .map(|Contribution { weight, rank, path, .. }| Input { file: path, weight, rank })
            .collect(),
        targets: done.targets,
        aggregation_error: done.error,
        notes: if done.error.is_none() { vec![note.to_owned()] } else { Vec::new() },
    };
    context.output.show(&aggregated, words)
}

/// A file's tensors, without keeping it open.
struct Header {
    path: PathBuf,
    entries: Vec<TensorEntry>,
}

impl Header {
    fn read(path: &Path) -> Result<Self, CliError> {
        Ok(Self { path: path.to_owned(), entries: manifest::read(path)? })
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| entry.shape.as_slice())
    }
}

/// A tensor's target and part of the method, unless it is the head's.
fn part_of<'a>(entry: &TensorEntry, parts: &'a [TensorSpec]) -> Option<&'a TensorSpec> {
    let (owner, part) = entry.name.rsplit_once('.')?;
    parts.iter().find(|known| owner != HEAD && known.part == part)
}

/// Every tensor must be one of the method's or the head's.
fn check_names(files: &[Header], parts: &[TensorSpec]) -> Result<(), CliError> {
    let known: Vec<&str> = parts.iter().map(|part| part.part.as_str()).collect();
    for file in files {
        for entry in &file.entries {
            let head = [HEAD_WEIGHT, HEAD_BIAS].contains(&entry.name.as_str());
            if head || part_of(entry, parts).is_some_and(|part| part.dims.len() == entry.shape.len()) {
                continue;
            }
            let word = entry.name.rsplit('.').next().unwrap_or_default();
            let near = nearest(word, known.iter().copied()).filter(|near| *near != word);
            let near = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
            let expected: Vec<String> =
                parts.iter().map(|part| format!("<target>.{} {}", part.part, part.dims_in_words())).collect();
            return Err(CliError::failed(format!(
                "{}: tensor `{}` {:?} is none of the method's: expected {}{near}",
                file.path.display(),
                entry.name,
                entry.shape,
                expected.join(" or ")
            )));
        }
    }
    Ok(())
}

/// Each file's rank, read off its tensors, and compared with what the operator says.
fn ranks(files: &[Header], parts: &[TensorSpec], given: &[usize]) -> Result<Vec<usize>, CliError> {
    let mut ranks = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let mut found = given.get(index).copied();
        for entry in &file.entries {
            let Some(rank) = part_of(entry, parts).and_then(|part| part.rank_in(&entry.shape)) else {
                continue;
            };
            if let Some(known) = found.filter(|known| *known != rank) {
                let (path, TensorEntry { name, shape, .. }) = (file.path.display(), entry);
                return Err(CliError::failed(format!("{path}: `{name}` {shape:?} has rank {rank}, expected {known}")));
            }
            found = Some(rank);
        }
        ranks.push(found.filter(|rank| *rank > 0).ok_or_else(|| {
            let path = file.path.display();
            CliError::failed(format!("{path}: no tensor shows the rank")).hint("say it with --ranks, one for each file")
        })?);
    }
    Ok(ranks)
}

/// Tensors of one name must have one shape in all files, up to the rank.
fn check_shapes(files: &[Header], parts: &[TensorSpec]) -> Result<(), CliError> {
    let Some((first, others)) = files.split_first() else { return Ok(()) };
    for (entry, file) in first.entries.iter().flat_map(|entry| others.iter().map(move |file| (entry, file))) {
        let Some(shape) = file.shape(&entry.name) else {
            return Err(CliError::failed(format!("{} has no tensor `{}`", file.path.display(), entry.name)));
        };
        let may_differ = |at: usize| part_of(entry, parts).is_some_and(|part| part.dims.get(at) == Some(&Dim::Rank));
        let equal = shape.len() == entry.shape.len()
            && shape.iter().zip(&entry.shape).enumerate().all(|(at, (a, b))| a == b || may_differ(at));
        if !equal {
            return Err(CliError::failed(format!(
                "`{}` is {:?} in {} and {shape:?} in {}",
                entry.name,
                entry.shape,
                first.path.display(),
                file.path.display()
            )));
        }
    }
    Ok(())
}

fn words(done: &Aggregated) -> String {
    let row =
        |input: &Input| vec![input.file.display().to_string(), format!("{:.6}", input.weight), input.rank.to_string()];
    let mut text = table(&["FILE", "SHARE", "RANK"], done.inputs.iter().map(row).collect(), "no files");
    text += "\n";
    text += &facts(&[
        ("method", format!("{} ({})", done.method, done.exactness)),
        ("aggregation error", relative_error(done.aggregation_error)),
        ("written", format!("{} ({}, {} targets)", done.out.display(), size(done.bytes), done.targets.len())),
        ("note", done.notes.join("; ")),
    ]);
    text
}
