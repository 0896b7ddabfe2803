//! `rondo run`: federated fine-tuning jobs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rondo_proto::clock::unix_millis;
use rondo_proto::run_file::RunFile;
use rondo_proto::v1::{CreateRunRequest, GetRunReply, GetRunRequest, ListRunsRequest, RunSummary, Willing};

use crate::context::{Administration, Context};
use crate::error::CliError;
use crate::output::{self, facts, table};
use crate::render::run::{best, event_line};
use crate::run_names::resolve;
use crate::start_adapter;
use crate::text::{clock, moment, span};
use crate::watch;
use crate::why_waiting;

/// Longest run file that is sent.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Events that `show` prints.
const EVENTS_SHOWN: usize = 20;

/// Commands about runs.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Creates a run from a run file
    ///
    /// With --from-adapter the run starts from an adapter instead of the bare base model: everybody
    /// merges it into the base first, and what the run trains comes on top. Evaluations and exports
    /// include it. Any method goes with any adapter.
    #[command(
        after_help = "Example:\n  rondo run create examples/runs/fed-sb.toml\n  rondo run create examples/runs/ffa-lora.toml --from-adapter adapter"
    )]
    Create {
        /// The run file, TOML
        file: PathBuf,
        /// A PEFT folder to start from: adapter_config.json and adapter_model.safetensors, as PEFT
        /// saves them and `rondo adapter export --format peft` writes them
        #[arg(long, value_name = "DIR")]
        from_adapter: Option<PathBuf>,
    },
    /// Lists all runs
    #[command(after_help = "Example:\n  rondo run list")]
    List,
    /// Shows a run: phase, clients, latest events
    #[command(after_help = "Example:\n  rondo run show sentiment")]
    Show(Id),
    /// Shows a run live until it ends: exit code 0 when
    /// it completed, 1 when it failed or was cancelled
    #[command(after_help = "Example:\n  rondo run watch sentiment")]
    Watch(Id),
    /// Starts no further round; work in hand goes on
    #[command(after_help = "Example:\n  rondo run pause sentiment")]
    Pause(Id),
    /// Goes on with a paused run
    #[command(after_help = "Example:\n  rondo run resume sentiment")]
    Resume(Id),
    /// Ends a run; what was published stays
    #[command(after_help = "Example:\n  rondo run cancel sentiment")]
    Cancel(Id),
}

/// A run's id.
#[derive(Debug, Args)]
pub struct Id {
    /// The run's id or name, from `rondo run list`, or the beginning of its id
    run: String,
}

impl Id {
    async fn request(self, admin: &mut Administration) -> Result<GetRunRequest, CliError> {
        Ok(GetRunRequest { run: resolve(admin, &self.run).await? })
    }
}

/// Does a command about runs.
///
/// # Errors
/// The run file or the start adapter cannot be used, the coordinator cannot be reached or refuses,
/// or the result cannot be printed. `watch` also fails when the run does not complete.
pub async fn run(command: RunCommand, context: &mut Context) -> Result<(), CliError> {
    let mut admin = context.administration().await?;
    let creates = matches!(command, RunCommand::Create { .. });
    let summary = match command {
        RunCommand::Create { file, from_adapter } => {
            let (run_file, run) = read(&file)?;
            let initial_digest = match from_adapter {
                Some(dir) => start_adapter::upload(&mut admin, &run, &dir).await?,
                None => String::new(),
            };
            admin.create_run(CreateRunRequest { run_file, initial_digest }).await?
        }
        RunCommand::List => {
            let reply = admin.list_runs(ListRunsRequest {}).await?.into_inner();
            return context.output.show(&reply, |reply| list(&reply.runs));
        }
        RunCommand::Show(id) => {
            let request = id.request(&mut admin).await?;
            let reply = admin.get_run(request).await?.into_inner();
            let summary = reply.summary.clone().unwrap_or_default();
            let waits_for =
                if context.output.json() { None } else { why_waiting::reason(&mut admin, &summary).await? };
            return context.output.show(&reply, |reply| details(reply, waits_for.as_deref()));
        }
        RunCommand::Watch(id) => {
            let GetRunRequest { run } = id.request(&mut admin).await?;
            return watch::watch(&mut admin, &run, &mut context.output).await;
        }
        RunCommand::Pause(id) => {
            let request = id.request(&mut admin).await?;
            admin.pause_run(request).await?
        }
        RunCommand::Resume(id) => {
            let request = id.request(&mut admin).await?;
            admin.resume_run(request).await?
        }
        RunCommand::Cancel(id) => {
            let request = id.request(&mut admin).await?;
            admin.cancel_run(request).await?
        }
    };
    let summary = summary.into_inner();
    context.output.show(&summary, overview)?;
    if creates {
        let notes = summary.open.iter().flat_map(|round| &round.notes);
        notes.for_each(|note| output::note(note));
        note_namesakes(&mut admin, &summary).await?;
    }
    Ok(())
}

/// A name may be given again; then it says no longer which run is meant.
async fn note_namesakes(admin: &mut Administration, run: &RunSummary) -> Result<(), CliError> {
    let runs = admin.list_runs(ListRunsRequest {}).await?.into_inner().runs;
    if let Some(text) = namesakes(&runs, run) {
        output::note(&text);
    }
    Ok(())
}

fn namesakes(runs: &[RunSummary], run: &RunSummary) -> Option<String> {
    let others = runs.iter().filter(|other| other.name == run.name && other.run != run.run);
    let ids: Vec<&str> = others.map(|other| other.run.as_str()).collect();
    let first = ids.first()?;
    let name = &run.name;
    let all = ids.join(", ");
    Some(format!("{name:?} is also the name of {all}; say the id where one of them is meant: `rondo run show {first}`"))
}

/// A run file that parses; what depends on the base and the method the coordinator checks.
fn read(file: &std::path::Path) -> Result<(String, RunFile), CliError> {
    let length = std::fs::metadata(file).map_err(|error| CliError::io(file, &error))?.len();
    if length > MAX_FILE_BYTES {
        return Err(CliError::failed(format!("{} has {length} bytes, that is no run file", file.display())));
    }
    let text = std::fs::read_to_string(file).map_err(|error| CliError::io(file, &error))?;
    let run = RunFile::parse(&text).map_err(|error| {
        CliError::failed(format!("{}: {error}", file.display())).hint("examples/runs holds commented run files")
    })?;
    Ok((text, run))
}

/// Phase and, where it ended, how.
fn state(run: &RunSummary) -> String {
    match (run.outcome.as_str(), run.paused) {
        ("", false) => run.phase.clone(),
        ("", true) => format!("{} (paused)", run.phase),
        (outcome, _) => outcome.to_owned(),
    }
}

fn list(runs: &[RunSummary]) -> String {
    let row = |run: &RunSummary| {
        let rounds = format!("{}/{}", run.round, run.rounds);
        vec![run.run.clone(), state(run), rounds, run.method.clone(), run.base.clone(), moment(run.created_at_ms)]
    };
    let titles = ["RUN", "STATE", "ROUND", "METHOD", "BASE", "CREATED"];
    table(&titles, runs.iter().map(row).collect(), "no runs; `rondo run create` starts one")
}

fn overview(run: &RunSummary) -> String {
    let deadline = match run.deadline_ms {
        0 => String::new(),
        at => format!("{} (in {})", clock(at), span(at.saturating_sub(unix_millis()).max(0))),
    };
    facts(&[
        ("run", run.run.clone()),
        ("state", state(run)),
        ("round", format!("{} of {}", run.round, run.rounds)),
        ("deadline", deadline),
        ("method", run.method.clone()),
        ("aggregation", run.exactness.clone()),
        ("base", run.base.clone()),
        ("starts from", start(run)),
        ("data set", run.dataset.clone()),
        ("measured at", measured_at(run)),
        ("best round", best(run)),
        ("privacy", run.privacy.clone()),
        ("created", moment(run.created_at_ms)),
        ("ended", moment(run.ended_at_ms)),
    ])
}

/// The adapter below everything that the run trains, if any.
fn start(run: &RunSummary) -> String {
    if run.initial_digest.is_empty() { String::new() } else { format!("adapter {}", run.initial_digest) }
}

/// Where the published adapters are measured, if at one client.
fn measured_at(run: &RunSummary) -> String {
    match run.evaluation_client.as_str() {
        "" => String::new(),
        client => format!("{client}, data set {}", run.evaluation_dataset),
    }
}

fn details(reply: &GetRunReply, waits_for: Option<&str>) -> String {
    let summary = reply.summary.clone().unwrap_or_default();
    let mut text = overview(&summary);
    let row = |willing: &Willing| {
        let answer = match (willing.accepted, willing.undecided) {
            (true, _) => "accepted",
            (false, true) => "undecided",
            (false, false) => "declined",
        };
        let rank = if willing.rank == 0 { "-".to_owned() } else { willing.rank.to_string() };
        vec![willing.client.clone(), answer.to_owned(), rank, willing.reason.clone()]
    };
    let rows = summary.willing.iter().map(row).collect();
    text += &format!("\n{}", table(&["CLIENT", "INVITATION", "RANK", "REASON"], rows, "no client has answered yet\n"));
    text += &waits_for.map(|reason| format!("{reason}\n")).unwrap_or_default();
    for (title, record) in [("open round", &summary.open), ("latest round", &summary.latest)] {
        if let Some(record) = record {
            text += &format!("\n{title}\n{}", super::round::details(record, super::round::wire(&reply.run_file)));
        }
    }
    let skipped = reply.events.len().saturating_sub(EVENTS_SHOWN);
    text += "\nevents\n";
    for event in reply.events.iter().skip(skipped) {
        text += &format!("{}\n", event_line(event));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_the_same_name_are_distinguished_by_id() {
        let run = |id: &str, name: &str| RunSummary { run: id.into(), name: name.into(), ..RunSummary::default() };
        let first = run("sentiment-a", "sentiment");
        let new = run("sentiment-b", "sentiment");
        let text = namesakes(&[first.clone(), run("topics-c", "topics"), new.clone()], &new).unwrap();
        assert!(text.contains("name of sentiment-a;") && text.ends_with("`rondo run show sentiment-a`"), "{text}");
        assert_eq!(namesakes(std::slice::from_ref(&first), &first), None);
    }
}
