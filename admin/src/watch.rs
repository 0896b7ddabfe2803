//! `rondo run watch`: a run's changes as they happen.

mod bars;

use std::time::{Duration, Instant};

use rondo_proto::error::ErrorCode;
use rondo_proto::v1::{GetRunRequest, RoundRecord, RunEvent, RunSummary, RunUpdate};
use tonic::Status;

use crate::commands::round::{number, totals};
use crate::context::Administration;
use crate::error::CliError;
use crate::output::Output;
use crate::text::{clock, relative_error, size, span};
use bars::Bars;

/// How long a coordinator may be away before watching is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause before the next attempt to reach it.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows a run until it ends. Fails when the run failed or was cancelled. A coordinator that restarts is waited for.
pub async fn watch(client: &mut Administration, run: &str, output: &mut Output) -> Result<(), CliError> {
    let mut story = Story::default();
    let mut bars = output.live().then(Bars::new);
    let mut away: Option<Instant> = None;
    loop {
        let status = match client.watch_run(GetRunRequest { run: run.to_owned() }).await {
            Ok(reply) => {
                let mut updates = reply.into_inner();
                loop {
                    match updates.message().await {
                        Ok(Some(update)) => {
                            away = None;
                            show(&update, &mut story, bars.as_mut(), output)?;
                            if let Some(verdict) = verdict(update.summary.as_ref()) {
                                return verdict;
                            }
                        }
                        Ok(None) => break Status::unavailable("the coordinator closed the stream"),
                        Err(status) => break status,
                    }
                }
            }
            Err(status) => status,
        };
        // What was never there is not waited for; what was there comes back.
        let since = *away.get_or_insert_with(Instant::now);
        if !story.begun || !ErrorCode::of(&status).retryable() || since.elapsed() > PATIENCE {
            return Err(status.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn show(update: &RunUpdate, story: &mut Story, bars: Option<&mut Bars>, output: &mut Output) -> Result<(), CliError> {
    let lines = story.lines(update);
    match bars {
        _ if output.json() => output.json_line(update),
        Some(bars) => {
            lines.iter().for_each(|line| bars.print(line));
            update.summary.iter().for_each(|summary| bars.show(summary));
            Ok(())
        }
        None => lines.iter().try_for_each(|line| output.line(line)),
    }
}

/// How the command ends, once the run has.
fn verdict(summary: Option<&RunSummary>) -> Option<Result<(), CliError>> {
    let summary = summary.filter(|summary| !summary.outcome.is_empty())?;
    Some(match summary.outcome.as_str() {
        "completed" => Ok(()),
        outcome => Err(CliError::failed(format!("run {} ended: {outcome}", summary.run))
            .hint(format!("`rondo run show {}` tells what happened", summary.run))),
    })
}

/// What was told already, so that every change is told once, across reconnections too.
#[derive(Debug, Default)]
struct Story {
    begun: bool,
    event: u64,
    closed: Option<u32>,
    outcome: bool,
}

impl Story {
    /// The lines that an update adds.
    fn lines(&mut self, update: &RunUpdate) -> Vec<String> {
        let mut lines = Vec::new();
        if let (Some(summary), false) = (&update.summary, self.begun) {
            lines.push(headline(summary));
            // Rounds that were closed before are history, but the latest tells where the run stands.
            self.begun = true;
        }
        for event in update.events.iter().filter(|event| event.sequence > self.event) {
            lines.push(event_line(event));
        }
        self.event = update.events.iter().map(|event| event.sequence).fold(self.event, u64::max);
        if let Some(latest) = update.summary.as_ref().and_then(|summary| summary.latest.as_ref())
            && self.closed.is_none_or(|closed| latest.round > closed)
        {
            lines.push(round_line(latest));
            self.closed = Some(latest.round);
        }
        if let Some(summary) = update.summary.as_ref().filter(|summary| !summary.outcome.is_empty() && !self.outcome) {
            lines.push(format!("run {} ended: {}", summary.run, summary.outcome));
            self.outcome = true;
        }
        lines
    }
}

/// What run it is.
fn headline(run: &RunSummary) -> String {
    format!(
        "run {}: {} on {}, {} rounds, data set {}, {}; now {}{}",
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
pub fn event_line(event: &RunEvent) -> String {
    let who = if event.client.is_empty() { String::new() } else { format!("{}: ", event.client) };
    format!("{}  {who}{}", clock(event.at_ms), event.text)
}

/// A closed round as one line.
pub fn round_line(record: &RoundRecord) -> String {
    let sums = totals(record);
    let mut parts = vec![format!("{} updates", sums.updates)];
    if sums.dropped > 0 {
        parts.push(format!("{} dropped", sums.dropped));
    }
    if sums.loss.is_some() {
        parts.push(format!("loss {}", number(sums.loss, 4)));
    }
    if sums.accuracy.is_some() {
        parts.push(format!("accuracy {}", number(sums.accuracy, 4)));
    }
    if record.aggregation_error.is_some() {
        parts.push(format!("aggregation error {}", relative_error(record.aggregation_error)));
    }
    parts.push(format!("up {}, down {}", size(sums.up), size(sums.down)));
    parts.push(span(record.ended_at_ms.saturating_sub(record.started_at_ms).max(0)));
    let name = if record.kind == "warm-up" { "warm-up".to_owned() } else { format!("round {}", record.round) };
    format!("{}  {name} closed: {}", clock(record.ended_at_ms), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64, client: &str, text: &str) -> RunEvent {
        let (client, text) = (client.to_owned(), text.to_owned());
        RunEvent { sequence, at_ms: 1_700_000_000_000, client, text, ..RunEvent::default() }
    }

    fn summary(outcome: &str, latest: Option<u32>) -> RunSummary {
        let latest = latest.map(|round| RoundRecord { round, kind: "training".to_owned(), ..RoundRecord::default() });
        let (run, outcome) = ("r".to_owned(), outcome.to_owned());
        RunSummary { run, outcome, latest, ..RunSummary::default() }
    }

    #[test]
    fn every_change_is_told_once() {
        let mut story = Story::default();
        let first = RunUpdate { summary: Some(summary("", None)), events: vec![event(1, "a", "accepted")] };
        let lines = story.lines(&first);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1], "22:13:20  a: accepted");
        // The same again, as after a reconnection.
        assert_eq!(story.lines(&first), Vec::<String>::new());
        let events = vec![event(1, "a", "accepted"), event(2, "", "round 1 published")];
        let next = RunUpdate { summary: Some(summary("", Some(1))), events };
        let lines = story.lines(&next);
        assert!(lines[0].ends_with("round 1 published") && lines[1].contains("round 1 closed"), "{lines:?}");
        let last = RunUpdate { summary: Some(summary("completed", Some(1))), events: Vec::new() };
        assert_eq!(story.lines(&last), ["run r ended: completed"]);
        assert_eq!(story.lines(&last), Vec::<String>::new());
    }

    #[test]
    fn the_outcome_decides_the_exit() {
        assert!(verdict(Some(&summary("", None))).is_none());
        assert_eq!(verdict(Some(&summary("completed", None))), Some(Ok(())));
        for outcome in ["cancelled", "failed: no quorum"] {
            assert!(verdict(Some(&summary(outcome, None))).is_some_and(|end| end.is_err()), "{outcome}");
        }
    }
}
