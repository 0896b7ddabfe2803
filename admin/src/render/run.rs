//! A run in single lines: its headline, its events, its closed rounds, its best round.

use rondo_proto::v1::{RoundRecord, RunEvent, RunSummary};

use crate::render::round::{number, totals};
use crate::text::{clock, relative_error, size, span};

/// What run it is.
pub(crate) fn headline(run: &RunSummary) -> String {
    let measured = match run.evaluation_client.as_str() {
        "" => String::new(),
        client => format!(", measured at {client} on {}", run.evaluation_dataset),
    };
    format!(
        "run {}: {} on {}, {} rounds, data set {}{measured}, {}; now {}{}",
        run.run,
        run.method,
        run.base,
        run.rounds,
        run.dataset,
        run.privacy,
        run.phase,
        if run.paused { " (paused)" } else { "" }
    )
}

/// An event as one line.
pub(crate) fn event_line(event: &RunEvent) -> String {
    let who = if event.client.is_empty() { String::new() } else { format!("{}: ", event.client) };
    format!("{}  {who}{}", clock(event.at_ms), event.text)
}

/// A closed round as one line.
pub(crate) fn round_line(record: &RoundRecord) -> String {
    let sums = totals(record);
    let mut parts = vec![match sums.updates {
        1 => "1 update".to_owned(),
        updates => format!("{updates} updates"),
    }];
    if sums.dropped > 0 {
        parts.push(format!("{} dropped", sums.dropped));
    }
    if sums.loss.is_some() {
        parts.push(format!("loss {}", number(sums.loss, 4)));
    }
    if sums.held_out.is_some() {
        parts.push(format!("held-out loss {}", number(sums.held_out, 4)));
    }
    if sums.perplexity.is_some() {
        parts.push(format!("perplexity {}", number(sums.perplexity, 2)));
    }
    if sums.accuracy.is_some() {
        parts.push(format!("accuracy {}", number(sums.accuracy, 4)));
    }
    if record.aggregation_error.is_some() {
        parts.push(format!("aggregation error {}", relative_error(record.aggregation_error)));
    }
    parts.push(format!("up {}, down {}", size(sums.up), size(sums.down)));
    parts.push(span(record.ended_at_ms.saturating_sub(record.started_at_ms).max(0)));
    match record.rolled_back_to {
        Some(0) => parts.push("rolled back to the start".to_owned()),
        Some(round) => parts.push(format!("rolled back to round {round}")),
        None if record.best_round == Some(record.round) => parts.push("the best so far".to_owned()),
        None => {}
    }
    let name = if record.kind == "warm-up" { "warm-up".to_owned() } else { format!("round {}", record.round) };
    format!("{}  {name} closed: {}", clock(record.ended_at_ms), parts.join(", "))
}

/// The best round so far, and whether it is the one that the run hands out.
pub(crate) fn best(run: &RunSummary) -> String {
    let Some((round, loss)) = run.best_round.zip(run.best_loss) else { return String::new() };
    let kept = match (run.keep.as_str(), run.outcome.is_empty()) {
        ("best", true) => "; it will be kept",
        ("best", false) => "; it is what the run hands out",
        _ => "",
    };
    format!("{round} (held-out loss {loss:.4}{kept})")
}
