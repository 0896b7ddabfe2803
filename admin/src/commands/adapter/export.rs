//! `rondo adapter export`: from the coordinator's blobs to a PEFT folder, or to full weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rondo_methods::{ExportInfo, ExportReport, Job, MergedReport, MethodError, Publication, Registry};
use rondo_proto::run_file::RunFile;
use rondo_proto::v1::{AdapterState, BaseModel, GetAdapterReply, GetAdapterRequest, GetRunRequest};
use serde::Serialize;

use super::evidence;
use crate::blobs;
use crate::context::{Administration, Context};
use crate::error::CliError;
use crate::output::facts;
use crate::run_names::resolve;

/// Which adapter, and where to.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rondo adapter export sentiment --format peft --out adapter\n  rondo adapter export sentiment --round 2 --recompress 16 --out adapter-r16\n  rondo adapter export sentiment --format merged --model models/minilm-l6 --out merged"
)]
pub struct ExportArgs {
    /// The run's id or name, or the beginning of its id
    run: String,
    /// State after this round [default: the latest]
    #[arg(long)]
    round: Option<u32>,
    /// Format of the folder
    #[arg(long, value_enum, default_value_t = Format::Peft)]
    format: Format,
    /// The base model's folder, for `--format merged`;
    /// its files must be those of the registered base
    #[arg(long, value_name = "DIR", required_if_eq("format", "merged"))]
    model: Option<PathBuf>,
    /// Folder to make; it must be empty or not there yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name or path under which Python loads the base model [default: its registered name]
    #[arg(long, value_name = "NAME")]
    base_model: Option<String>,
    /// Compress every target to at most this rank, by QR and SVD; the error is reported
    #[arg(long, value_name = "RANK")]
    recompress: Option<usize>,
}

/// Formats of an exported folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Hugging Face PEFT, LoRA
    Peft,
    /// Hugging Face PEFT, in its own type for the run's method, where there is one
    PeftNative,
    /// The base model's weights with the adapter in them, in their own shards and number formats
    Merged,
}

#[derive(Debug, Serialize)]
struct Exported {
    run: String,
    round: u32,
    method: String,
    privacy: String,
    /// Digest of the adapter that the run started from and that is in this one; empty without.
    initial: String,
    out: PathBuf,
    files: Vec<PathBuf>,
    /// Of a PEFT folder.
    rank: Option<usize>,
    parameters: Option<usize>,
    recompression_error: Option<f64>,
    /// Of full weights: how many were changed, and what
    /// their number format costs relative to the change.
    merged: Option<usize>,
    rounding: Option<f64>,
}

/// Fetches, checks and writes.
pub(super) async fn run(args: ExportArgs, context: &mut Context) -> Result<(), CliError> {
    if args.recompress == Some(0) {
        return Err(CliError::usage("--recompress 0 leaves nothing; ask for 1 or more"));
    }
    if let Some(why) = not_compressed(args.format).filter(|_| args.recompress.is_some()) {
        return Err(CliError::usage(format!("--recompress is for --format peft; {why}")));
    }
    check_empty(&args.out)?;
    let mut client = context.administration().await?;
    let run = resolve(&mut client, &args.run).await?;
    let request = GetAdapterRequest { run: run.clone(), round: args.round };
    let reply = client.get_adapter(request).await?.into_inner();
    let state = reply.state.clone().unwrap_or_default();
    if state.published.is_empty() {
        let problem = format!("run {run} has published no adapter yet");
        return Err(CliError::failed(problem).hint(format!("`rondo run watch {run}` shows how far it is")));
    }
    let base = reply.base.clone().unwrap_or_default();
    // Before any blob is fetched.
    if let (Format::Merged, Some(model)) = (args.format, &args.model) {
        check_model(model, &base)?;
    }
    let mut job = job(&reply)?;
    if args.format == Format::PeftNative {
        job.native()?;
    }
    let folder = tempfile::tempdir().map_err(|error| CliError::failed(format!("no temporary folder: {error}")))?;
    if !state.initial_digest.is_empty() {
        job = job.starting_from(&blobs::fetch(&mut client, &run, &state.initial_digest, folder.path()).await?)?;
    }
    let (frozen, published) = fetch(&mut client, &run, &state, job.publication(), folder.path()).await?;
    let adapter = job.state(state.round, "export", 0, frozen.as_deref(), &published)?;
    let rounds = client.list_rounds(GetRunRequest { run }).await?.into_inner().rounds;
    let info = ExportInfo {
        base_model_name: args.base_model.unwrap_or_else(|| base.name.clone()),
        provenance: provenance(&reply, &state),
        owners: evidence::owners(&rounds, state.round),
        measured: evidence::measured(&rounds, state.round),
        recompress: args.recompress,
    };
    let mut exported = Exported {
        run: reply.run,
        round: state.round,
        method: reply.method,
        privacy: reply.privacy,
        initial: state.initial_digest,
        out: args.out,
        files: Vec::new(),
        rank: None,
        parameters: None,
        recompression_error: None,
        merged: None,
        rounding: None,
    };
    match (args.format, args.model) {
        (Format::Merged, Some(model)) => {
            let MergedReport { files, merged, rounding } = job.export_merged(&adapter, &model, &exported.out, &info)?;
            (exported.files, exported.merged, exported.rounding) = (files, Some(merged), rounding);
        }
        (Format::Merged, None) => return Err(CliError::usage("--format merged needs --model DIR")),
        (Format::Peft | Format::PeftNative, _) => {
            let ExportReport { files, rank, parameters, recompression_error } = match args.format {
                Format::PeftNative => job.export_native(&adapter, &exported.out, &info)?,
                _ => job.export_peft(&adapter, &exported.out, &info)?,
            };
            (exported.files, exported.rank, exported.parameters) = (files, Some(rank), Some(parameters));
            exported.recompression_error = recompression_error;
        }
    }
    context.output.show(&exported, words)
}

/// Why a format takes no compression; `None` for the one that does.
fn not_compressed(format: Format) -> Option<&'static str> {
    match format {
        Format::Peft => None,
        Format::PeftNative => Some("a type of the method's own takes its tensors as they are"),
        Format::Merged => Some("full weights take the whole change"),
    }
}

/// Full weights are written from the registered base's own files, which must be a folder.
fn check_model(model: &Path, base: &BaseModel) -> Result<(), CliError> {
    let packed = base.files.iter().map(|file| Path::new(&file.name)).find(|file| rondo_base::is_gguf(file));
    if let Some(file) = packed {
        let problem = format!(
            "base {:?} is the GGUF file {}, whose packed weights cannot take an adapter without loss",
            base.name,
            file.display()
        );
        return Err(CliError::failed(problem).hint(
            "export with `--format peft`, and merge into the Hugging Face folder that the file was made from: \
             `rondo-client merge --model DIR --adapter DIR --out DIR`",
        ));
    }
    if rondo_base::is_gguf(model) {
        return Err(MethodError::PackedBase { path: model.to_owned() }.into());
    }
    Ok(rondo_base::check(model, base)?)
}

/// The folder is made anew, so that no file of another adapter stays in it.
fn check_empty(out: &Path) -> Result<(), CliError> {
    match std::fs::read_dir(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CliError::io(out, &error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(CliError::failed(format!("{} is not empty", out.display()))
                .hint("name a folder that is not there yet, or empty this one")),
        },
    }
}

fn job(reply: &GetAdapterReply) -> Result<Job, CliError> {
    let run = RunFile::parse(&reply.run_file)?;
    let base = reply.base.as_ref().ok_or_else(|| CliError::failed("the coordinator names no base model"))?;
    Ok(Job::new(&Registry::builtin(), &run, base)?)
}

/// The files a state is built from. Where a new file
/// replaces the one before, only the last is needed.
async fn fetch(
    client: &mut Administration,
    run: &str,
    state: &AdapterState,
    publication: Publication,
    dir: &Path,
) -> Result<(Option<PathBuf>, Vec<PathBuf>), CliError> {
    let frozen = match state.frozen_digest.as_str() {
        "" => None,
        digest => Some(blobs::fetch(client, run, digest, dir).await?),
    };
    let needed = match publication {
        Publication::Accumulate => &state.published[..],
        Publication::Replace => &state.published[state.published.len().saturating_sub(1)..],
    };
    let mut published = Vec::new();
    for entry in needed {
        published.push(blobs::fetch(client, run, &entry.digest, dir).await?);
    }
    Ok((frozen, published))
}

/// Where the adapter comes from, for the files' metadata and
/// the card; the job adds method and base digest.
fn provenance(reply: &GetAdapterReply, state: &AdapterState) -> BTreeMap<String, String> {
    let base = reply.base.clone().unwrap_or_default();
    let latest = state.published.last().map(|published| published.digest.clone()).unwrap_or_default();
    let facts = [
        ("rondo.run_id", reply.run.clone()),
        ("rondo.round", state.round.to_string()),
        ("rondo.privacy", reply.privacy.clone()),
        ("rondo.base", base.name),
        ("rondo.adapter_digest", latest),
        ("rondo.frozen_digest", state.frozen_digest.clone()),
        ("rondo.initial_digest", state.initial_digest.clone()),
        ("rondo.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    facts.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_owned(), value)).collect()
}

fn words(exported: &Exported) -> String {
    let files: Vec<String> = exported.files.iter().map(|file| file.display().to_string()).collect();
    facts(&[
        ("exported", format!("{} after round {}", exported.run, exported.round)),
        ("method", exported.method.clone()),
        ("privacy", exported.privacy.clone()),
        (
            "started from",
            if exported.initial.is_empty() { String::new() } else { format!("adapter {}", exported.initial) },
        ),
        ("rank", exported.rank.map(|rank| rank.to_string()).unwrap_or_default()),
        ("parameters", exported.parameters.map(|count| count.to_string()).unwrap_or_default()),
        ("recompression", exported.recompression_error.map(|e| format!("relative error {e:.2e}")).unwrap_or_default()),
        ("changed", exported.merged.map(|count| format!("{count} weights")).unwrap_or_default()),
        ("rounding", exported.rounding.map(|e| format!("{e:.1e} of the change")).unwrap_or_default()),
        ("files", files.join("\n               ")),
    ])
}
