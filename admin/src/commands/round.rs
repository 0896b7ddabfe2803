//! `rondo round`: what every round did, client by client.

use clap::Subcommand;
use rondo_proto::run_file::{Dtype, RunFile};
use rondo_proto::v1::{
    Evaluation, GetRoundRequest, GetRunRequest, GroupEvaluation, Measurement, Participant, RoundRecord,
};

use crate::context::Context;
use crate::error::CliError;
use crate::output::{facts, table};
use crate::render::round::{after_groups, counts_tokens, number, perplexity, totals};
use crate::run_names::resolve;
use crate::text::{moment, relative_error, size, size_against, span};

/// Commands about rounds.
#[derive(Debug, Subcommand)]
pub enum RoundCommand {
    /// Lists the rounds of a run, the open one too
    #[command(after_help = "Example:\n  rondo round list sentiment")]
    List {
        /// The run's id or name, or the beginning of its id
        run: String,
    },
    /// Shows a round: who took part with what weight, bytes against
    /// the layout's formula, losses, accuracy, groups
    #[command(after_help = "Example:\n  rondo round show sentiment 2")]
    Show {
        /// The run's id or name, or the beginning of its id
        run: String,
        /// The round's number; 0 is the warm-up
        round: u32,
    },
}

/// Does a command about rounds.
///
/// # Errors
/// The text fits several runs, the coordinator cannot be reached or refuses, or the result cannot
/// be printed.
pub async fn run(command: RoundCommand, context: &mut Context) -> Result<(), CliError> {
    let mut admin = context.administration().await?;
    match command {
        RoundCommand::List { run } => {
            let run = resolve(&mut admin, &run).await?;
            let reply = admin.list_rounds(GetRunRequest { run }).await?.into_inner();
            context.output.show(&reply, |reply| list(&reply.rounds))
        }
        RoundCommand::Show { run, round } => {
            let run = resolve(&mut admin, &run).await?;
            let record = admin.get_round(GetRoundRequest { run: run.clone(), round }).await?.into_inner();
            let dtype = wire(&admin.get_run(GetRunRequest { run }).await?.into_inner().run_file);
            context.output.show(&record, |record| details(record, dtype))
        }
    }
}

/// The round that is the best of these, as the latest closed one has it.
fn best_of(rounds: &[RoundRecord]) -> Option<u32> {
    rounds.iter().rev().find(|record| record.ended_at_ms != 0).and_then(|record| record.best_round)
}

/// What becomes of a round among the others.
pub(crate) fn remark(record: &RoundRecord, best: Option<u32>) -> String {
    match record.rolled_back_to {
        Some(0) => "back to start".to_owned(),
        Some(to) => format!("back to {to}"),
        None if best == Some(record.round) => "best".to_owned(),
        None => String::new(),
    }
}

fn list(rounds: &[RoundRecord]) -> String {
    let best = best_of(rounds);
    let language = rounds.iter().any(counts_tokens);
    let row = |record: &RoundRecord| {
        let sums = totals(record);
        let mut cells = vec![
            record.round.to_string(),
            record.kind.clone(),
            record.attempt.to_string(),
            sums.updates.to_string(),
            sums.dropped.to_string(),
            relative_error(record.aggregation_error),
            number(sums.loss, 4),
            number(sums.held_out, 4),
        ];
        cells.extend(language.then(|| number(sums.perplexity, 2)));
        cells.extend([
            number(sums.accuracy, 4),
            size(sums.up),
            size(sums.down),
            match record.ended_at_ms {
                0 => "open".to_owned(),
                end => span(end.saturating_sub(record.started_at_ms).max(0)),
            },
            remark(record, best),
        ]);
        cells
    };
    let mut titles = vec!["ROUND", "KIND", "ATTEMPT", "UPDATES", "DROPPED", "ERROR", "LOSS", "HELD-OUT"];
    titles.extend(language.then_some("PERPLEXITY"));
    titles.extend(["ACCURACY", "UP", "DOWN", "TIME", ""]);
    table(&titles, rounds.iter().map(row).collect(), "no rounds yet")
}

/// The number format in which a run's tensors travel; f32 where the run file does not say.
pub(crate) fn wire(run_file: &str) -> Dtype {
    RunFile::parse(run_file).map_or(Dtype::F32, |run| run.wire.dtype)
}

/// What an aggregation error amounts to. Published tensors are rounded to the wire's
/// format, which an exact method cannot help: f32 rounds by up to 2^-24, bf16 by up
/// to 2^-9, twice where two factors are rounded.
fn verdict_on(error: f64, wire: Dtype) -> &'static str {
    match wire {
        _ if error <= 1e-6 => "exact to rounding",
        Dtype::Bf16 if error <= 2.0_f64.powi(-7) => "within the rounding of bf16",
        Dtype::F32 | Dtype::Bf16 => "approximate",
    }
}

/// A round with all its clients.
pub(crate) fn details(record: &RoundRecord, wire: Dtype) -> String {
    let error = record.aggregation_error.map(|error| {
        let word = verdict_on(error, wire);
        format!("{error:.2e} of the dense weighted mean ({word})")
    });
    let sums = totals(record);
    let held_out = sums.held_out.map(|loss| match sums.perplexity {
        Some(perplexity) => format!("{loss:.4} (perplexity {perplexity:.2})"),
        None => format!("{loss:.4}"),
    });
    let best = match record.best_round {
        Some(round) if round == record.round => "this one".to_owned(),
        Some(round) => format!("round {round}"),
        None => String::new(),
    };
    let back = match record.rolled_back_to {
        Some(0) => "to the start: the next round starts from there".to_owned(),
        Some(round) => format!("to round {round}: the next round starts from its adapter"),
        None => String::new(),
    };
    let kind = if record.attempt > 1 { format!(", attempt {}", record.attempt) } else { String::new() };
    let mut text = facts(&[
        ("run", record.run.clone()),
        ("round", format!("{} ({}{kind})", record.round, record.kind)),
        ("started", moment(record.started_at_ms)),
        ("ended", if record.ended_at_ms == 0 { "still open".to_owned() } else { moment(record.ended_at_ms) }),
        ("aggregation error", error.unwrap_or_else(|| "-".to_owned())),
        ("held-out loss", held_out.unwrap_or_default()),
        ("measured at", record.measurement.as_ref().map(measurement).unwrap_or_default()),
        ("best round so far", best),
        ("rolled back", back),
        ("published", record.global_digest.clone()),
        ("frozen tensors", record.frozen_digest.clone()),
        ("privacy", record.privacy.clone()),
        ("notes", record.notes.join("\n                   ")),
    ]);
    let language = counts_tokens(record);
    let mut titles = vec!["CLIENT", "STATE", "RANK", "WEIGHT", "EXAMPLES", "UP (vs layout)", "DOWN (vs layout)"];
    titles.extend(["LOSS", "SECONDS", "BEFORE", "AFTER"]);
    titles.extend(language.then_some("PERPLEXITY"));
    titles.push("REASON");
    let rows = record.participants.iter().map(|client| row(client, language)).collect();
    text += &format!("\n{}", table(&titles, rows, "no clients"));
    let groups = after_groups(record);
    if !groups.is_empty() {
        text += &format!("\nthe published adapter by group\n{}", group_table(&groups));
    }
    text
}

/// Who measured alone, and how that went.
fn measurement(measured: &Measurement) -> String {
    let Measurement { client, dataset, state, reason, .. } = measured;
    let bytes = size_against(measured.bytes_down, measured.layout_bytes_down);
    let how = match (state.as_str(), reason.as_str()) {
        ("done", _) => format!("down {bytes}"),
        (state, "") => state.to_owned(),
        (state, reason) => format!("{state}: {reason}"),
    };
    format!("{client}, data set {dataset} ({how})")
}

fn group_table(groups: &[GroupEvaluation]) -> String {
    let language = groups.iter().any(|group| group.tokens > 0);
    let row = |group: &GroupEvaluation| {
        let mut cells = vec![group.group.clone(), group.examples.to_string(), number(Some(group.loss), 4)];
        cells.extend(language.then(|| number((group.tokens > 0).then(|| group.loss.exp()), 2)));
        cells.push(number(Some(group.accuracy), 4));
        cells
    };
    let mut titles = vec!["GROUP", "EXAMPLES", "LOSS"];
    titles.extend(language.then_some("PERPLEXITY"));
    titles.push("ACCURACY");
    table(&titles, groups.iter().map(row).collect(), "no groups")
}

fn row(client: &Participant, language: bool) -> Vec<String> {
    let accuracy = |evaluation: &Option<Evaluation>| match evaluation {
        None if client.metrics_withheld => "withheld".to_owned(),
        measured => number(measured.as_ref().map(|measured| measured.accuracy), 4),
    };
    let accepted = client.state == "accepted";
    let has_figures = client.examples > 0;
    let mut cells = vec![
        client.client.clone(),
        client.state.clone(),
        client.rank.to_string(),
        number(accepted.then_some(client.weight), 4),
        // With privacy these stay with the data owner,
        // and no update without it rests on no example.
        if has_figures { client.examples.to_string() } else { "-".to_owned() },
        size_against(client.bytes_up, client.layout_bytes_up),
        size_against(client.bytes_down, client.layout_bytes_down),
        if client.metrics_withheld {
            "withheld".to_owned()
        } else {
            number(has_figures.then_some(client.train_loss), 4)
        },
        number(has_figures.then_some(client.train_seconds), 1),
        accuracy(&client.before),
        accuracy(&client.after),
    ];
    cells.extend(language.then(|| number(client.after.as_ref().and_then(perplexity), 2)));
    cells.push(client.reason.clone());
    cells
}

#[cfg(test)]
mod tests;
