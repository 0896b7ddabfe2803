//! `rondo round`: what every round did, client by client.

use clap::Subcommand;
use rondo_proto::run_file::{Dtype, RunFile};
use rondo_proto::v1::{Evaluation, GetRoundRequest, GetRunRequest, Participant, RoundRecord};

use crate::context::Context;
use crate::error::CliError;
use crate::output::{facts, table};
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
    /// Shows a round: who took part with what weight, bytes against the layout's formula, losses, accuracy
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

/// A round in a few numbers: means over the clients, weighed as they should be.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Totals {
    /// Updates that were aggregated.
    pub(crate) updates: usize,
    /// Clients that were dropped.
    pub(crate) dropped: usize,
    /// Training loss, weighed by the clients' shares.
    pub(crate) loss: Option<f64>,
    /// Accuracy of the published adapter, weighed by held-out examples.
    pub(crate) accuracy: Option<f64>,
    /// Bytes from all clients.
    pub(crate) up: u64,
    /// Bytes to all clients.
    pub(crate) down: u64,
}

/// Sums a round up.
pub(crate) fn totals(record: &RoundRecord) -> Totals {
    let accepted = || record.participants.iter().filter(|participant| participant.state == "accepted");
    let evaluations: Vec<Evaluation> = record.participants.iter().filter_map(|participant| participant.after).collect();
    let mean = |pairs: Vec<(f64, f64)>| {
        let weight: f64 = pairs.iter().map(|(weight, _)| weight).sum();
        (weight > 0.0).then(|| pairs.iter().map(|(weight, value)| weight * value).sum::<f64>() / weight)
    };
    let losses = accepted().map(|participant| (participant.weight, participant.train_loss)).collect();
    Totals {
        updates: accepted().count(),
        dropped: record.participants.iter().filter(|participant| participant.state == "dropped").count(),
        // A warm-up trains nothing, so it has no loss.
        loss: mean(losses).filter(|_| record.kind != "warm-up"),
        accuracy: mean(evaluations.iter().map(|after| (after.examples as f64, after.accuracy)).collect()),
        up: record.participants.iter().map(|participant| participant.bytes_up).sum(),
        down: record.participants.iter().map(|participant| participant.bytes_down).sum(),
    }
}

/// A number with some digits, or a dash.
pub(crate) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn list(rounds: &[RoundRecord]) -> String {
    let row = |record: &RoundRecord| {
        let sums = totals(record);
        vec![
            record.round.to_string(),
            record.kind.clone(),
            record.attempt.to_string(),
            sums.updates.to_string(),
            sums.dropped.to_string(),
            relative_error(record.aggregation_error),
            number(sums.loss, 4),
            number(sums.accuracy, 4),
            size(sums.up),
            size(sums.down),
            match record.ended_at_ms {
                0 => "open".to_owned(),
                end => span(end.saturating_sub(record.started_at_ms).max(0)),
            },
        ]
    };
    table(
        &["ROUND", "KIND", "ATTEMPT", "UPDATES", "DROPPED", "ERROR", "LOSS", "ACCURACY", "UP", "DOWN", "TIME"],
        rounds.iter().map(row).collect(),
        "no rounds yet",
    )
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
    let kind = if record.attempt > 1 { format!(", attempt {}", record.attempt) } else { String::new() };
    let mut text = facts(&[
        ("run", record.run.clone()),
        ("round", format!("{} ({}{kind})", record.round, record.kind)),
        ("started", moment(record.started_at_ms)),
        ("ended", if record.ended_at_ms == 0 { "still open".to_owned() } else { moment(record.ended_at_ms) }),
        ("aggregation error", error.unwrap_or_else(|| "-".to_owned())),
        ("published", record.global_digest.clone()),
        ("frozen tensors", record.frozen_digest.clone()),
        ("privacy", record.privacy.clone()),
        ("notes", record.notes.join("\n                   ")),
    ]);
    let titles = [
        "CLIENT",
        "STATE",
        "RANK",
        "WEIGHT",
        "EXAMPLES",
        "UP (vs layout)",
        "DOWN (vs layout)",
        "LOSS",
        "SECONDS",
        "BEFORE",
        "AFTER",
        "REASON",
    ];
    let rows = record.participants.iter().map(row).collect();
    text += &format!("\n{}", table(&titles, rows, "no clients"));
    text
}

fn row(client: &Participant) -> Vec<String> {
    let accuracy = |evaluation: Option<Evaluation>| number(evaluation.map(|evaluation| evaluation.accuracy), 4);
    let accepted = client.state == "accepted";
    vec![
        client.client.clone(),
        client.state.clone(),
        client.rank.to_string(),
        number(accepted.then_some(client.weight), 4),
        client.examples.to_string(),
        size_against(client.bytes_up, client.layout_bytes_up),
        size_against(client.bytes_down, client.layout_bytes_down),
        number(accepted.then_some(client.train_loss), 4),
        number(accepted.then_some(client.train_seconds), 1),
        accuracy(client.before),
        accuracy(client.after),
        client.reason.clone(),
    ]
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
    fn a_round_is_summed_up() {
        let sums = totals(&record());
        assert_eq!((sums.updates, sums.dropped, sums.up), (2, 1, 2040));
        assert!((sums.loss.unwrap() - 1.75).abs() < 1e-12 && (sums.accuracy.unwrap() - 0.6).abs() < 1e-12);
        assert_eq!(totals(&RoundRecord { kind: "warm-up".to_owned(), ..record() }).loss, None);
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
}
