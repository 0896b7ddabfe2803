//! `rondo round`: what every round did, client by client.

mod measured;

use clap::Subcommand;
use rondo_proto::run_file::{Dtype, RunFile};
use rondo_proto::v1::{
    Evaluation, GetRoundRequest, GetRunRequest, GroupEvaluation, Measurement, Participant, RoundRecord,
};

use crate::context::Context;
use crate::error::CliError;
use crate::output::{facts, table};
use crate::run_names::resolve;
use crate::text::{moment, relative_error, size, size_against, span};
pub(crate) use measured::totals;
use measured::{after_groups, counts_tokens, perplexity};

/// Commands about rounds.
#[derive(Debug, Subcommand)]
pub enum RoundCommand {
    /// Lists the rounds of a run, the open one too
    #[command(after_help = "Example:\n  rondo round list sentiment")]
    List {
        /// The run's id or name, or the beginning of its id
        run: String,
    },
    /// Shows a round: who took part with what weight, bytes against the layout's formula, losses, accuracy, groups
    #[command(after_help = "Example:\n  rondo round show sentiment 2")]
    Show {
        /// The run's id or name, or the beginning of its id
        run: String,
        /// The round's number; 0 is the warm-up
        round: u32,
    },
}

/// Does a command about rounds.
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

/// A number with some digits, or a dash.
pub(crate) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
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

/// The number format in which a run's tensors travel; f32 where the run file does not tell.
pub(crate) fn wire(run_file: &str) -> Dtype {
    RunFile::parse(run_file).map_or(Dtype::F32, |run| run.wire.dtype)
}

/// What an aggregation error amounts to. Published tensors are rounded to the wire's format, which an exact method
/// cannot help: f32 rounds by up to 2^-24, bf16 by up to 2^-9, twice where two factors are rounded.
fn judgement(error: f64, wire: Dtype) -> &'static str {
    match wire {
        _ if error <= 1e-6 => "exact to rounding",
        Dtype::Bf16 if error <= 2.0_f64.powi(-7) => "within the rounding of bf16",
        Dtype::F32 | Dtype::Bf16 => "approximate",
    }
}

/// A round with all its clients.
pub(crate) fn details(record: &RoundRecord, wire: Dtype) -> String {
    let error = record.aggregation_error.map(|error| {
        let word = judgement(error, wire);
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
    let accuracy = |evaluation: &Option<Evaluation>| number(evaluation.as_ref().map(|measured| measured.accuracy), 4);
    let accepted = client.state == "accepted";
    let mut cells = vec![
        client.client.clone(),
        client.state.clone(),
        client.rank.to_string(),
        number(accepted.then_some(client.weight), 4),
        client.examples.to_string(),
        size_against(client.bytes_up, client.layout_bytes_up),
        size_against(client.bytes_down, client.layout_bytes_down),
        number(accepted.then_some(client.train_loss), 4),
        number(accepted.then_some(client.train_seconds), 1),
        accuracy(&client.before),
        accuracy(&client.after),
    ];
    cells.extend(language.then(|| number(client.after.as_ref().and_then(perplexity), 2)));
    cells.push(client.reason.clone());
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> RoundRecord {
        let after = |accuracy, examples| Some(Evaluation { loss: 0.5, accuracy, examples, ..Default::default() });
        let client = |name: &str, weight, train_loss, after| Participant {
            client: name.to_owned(),
            state: "accepted".to_owned(),
            weight,
            train_loss,
            after,
            bytes_up: 1020,
            layout_bytes_up: 1000,
            ..Participant::default()
        };
        let gone = Participant {
            client: "c".to_owned(),
            state: "dropped".to_owned(),
            reason: "deadline".to_owned(),
            ..Participant::default()
        };
        RoundRecord {
            run: "sentiment".to_owned(),
            round: 2,
            kind: "training".to_owned(),
            aggregation_error: Some(3e-8),
            participants: vec![client("a", 0.25, 1.0, after(0.5, 300)), client("b", 0.75, 2.0, after(0.9, 100)), gone],
            ..RoundRecord::default()
        }
    }

    #[test]
    fn an_open_round_is_marked() {
        let closed = RoundRecord { started_at_ms: 1000, ended_at_ms: 6000, ..record() };
        let text = list(&[closed, RoundRecord { round: 3, ended_at_ms: 0, ..record() }]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with('2') && lines[1].ends_with("5 s"), "{text}");
        assert!(lines[2].starts_with('3') && lines[2].ends_with("open"), "{text}");
    }

    #[test]
    fn an_error_is_judged_by_what_the_wire_can_carry() {
        for (error, f32, bf16) in [
            (1e-8, "exact to rounding", "exact to rounding"),
            (3e-3, "approximate", "within the rounding of bf16"),
            (0.2, "approximate", "approximate"),
            (f64::NAN, "approximate", "approximate"),
        ] {
            assert_eq!((judgement(error, Dtype::F32), judgement(error, Dtype::Bf16)), (f32, bf16), "{error}");
        }
        assert_eq!((wire(""), wire("[wire]")), (Dtype::F32, Dtype::F32));
        let run = |wire: &str| {
            format!(
                "name = \"s\"\nbase = {{ model = \"tiny\" }}\ntask = {{ kind = \"classification\", dataset = \"r\", \
                 labels = [\"no\", \"yes\"] }}\nmethod = {{ id = \"flora\", rank = 2, targets = [\"query\"] }}\n\
                 train = {{ local_steps = 1, batch = 1, lr = 1e-3 }}\nrounds = {{ count = 2, cohort = 2, quorum = 2 }}\n{wire}"
            )
        };
        let both = (wire(&run("")), wire(&run("wire = { dtype = \"bf16\" }")));
        assert_eq!(both, (Dtype::F32, Dtype::Bf16));
    }

    #[test]
    fn details_show_clients_bytes_and_error() {
        let text = details(&record(), Dtype::F32);
        assert!(text.contains("still open"));
        for part in ["3.00e-8 of the dense", "exact to rounding", "1020 B (+2.0 %)", "deadline", "0.7500", "0.9000"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    /// A round of a language model, with groups.
    fn language() -> RoundRecord {
        let group = |name: &str, loss, accuracy, tokens| GroupEvaluation {
            group: name.to_owned(),
            loss,
            accuracy,
            examples: tokens / 10,
            tokens,
        };
        let after =
            |loss: f64, tokens, groups| Some(Evaluation { loss, accuracy: 0.5, examples: tokens / 10, tokens, groups });
        let mut record = RoundRecord { ended_at_ms: 1, held_out_loss: Some(2.0), best_round: Some(2), ..record() };
        record.participants[0].after = after(1.0, 100, vec![group("maths", 1.0, 0.25, 100)]);
        record.participants[1].after =
            after(7.0 / 3.0, 300, vec![group("law", 1.0, 0.75, 100), group("maths", 3.0, 0.5, 200)]);
        record
    }

    #[test]
    fn a_language_model_shows_perplexity_and_groups() {
        let text = details(&language(), Dtype::F32);
        // exp(2.0); maths is (1.0 * 100 + 3.0 * 200) / 300, its accuracy (0.25 * 10 + 0.5 * 20) / 30.
        for part in ["2.0000 (perplexity 7.39)", "by group", "PERPLEXITY", "law    10", "maths  30", "2.3333", "0.4167"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(list(&[language()]).contains("7.39"));
        // Where no tokens are counted there is no such column.
        assert!(!details(&record(), Dtype::F32).contains("PERPLEXITY"));
        assert!(!list(&[record()]).contains("PERPLEXITY"));
    }

    #[test]
    fn the_best_round_and_those_taken_back_are_marked() {
        let round = |round, rolled_back_to| RoundRecord { round, rolled_back_to, ..language() };
        let text = list(&[round(1, Some(0)), round(2, None), round(3, Some(2)), RoundRecord { round: 4, ..record() }]);
        let ends = ["back to start", "best", "back to 2", "open"];
        for (line, end) in text.lines().skip(1).zip(ends) {
            assert!(line.ends_with(end), "{end} is missing in\n{text}");
        }
        let text = details(&round(3, Some(2)), Dtype::F32);
        assert!(
            text.contains("rolled back        to round 2") && text.contains("best round so far  round 2"),
            "{text}"
        );
    }

    #[test]
    fn a_measurement_at_one_client_says_where_and_how_it_went() {
        let measured = |state: &str, reason: &str| Measurement {
            client: "judge".to_owned(),
            dataset: "public".to_owned(),
            state: state.to_owned(),
            reason: reason.to_owned(),
            ..Measurement::default()
        };
        let text = |measured| details(&RoundRecord { measurement: Some(measured), ..record() }, Dtype::F32);
        let line = "measured at        judge, data set public (";
        assert!(text(measured("evaluating", "")).contains(&format!("{line}evaluating)")));
        assert!(text(measured("missed", "gone")).contains(&format!("{line}missed: gone)")));
    }
}
