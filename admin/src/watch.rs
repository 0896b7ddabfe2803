//! `rondo run watch`: a run's changes as they happen.

mod bars;

use std::time::{Duration, Instant};

use rondo_proto::v1::{GetRunRequest, RunSummary, RunUpdate};
use rondo_wire::status::code_of;
use tokio::time::timeout;
use tonic::Status;

use crate::context::Administration;
use crate::error::CliError;
use crate::output::Output;
use crate::render::run::{best, event_line, headline, round_line};
use crate::why_waiting;
use bars::Bars;

/// How long a coordinator may be away before watching is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// After so long without a change, a run that waits for clients is asked about again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Pause before the next attempt to reach it.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows a run until it ends. Fails when the run failed or was
/// cancelled. A coordinator that restarts is waited for.
///
/// # Errors
/// The run does not complete, the coordinator refuses or stays away for over two minutes, or the
/// output cannot be written.
pub async fn watch(client: &mut Administration, run: &str, output: &mut Output) -> Result<(), CliError> {
    let mut printer = EventPrinter::default();
    let mut bars = output.live().then(Bars::new);
    let mut away: Option<Instant> = None;
    let mut wait_state = WaitState::default();
    loop {
        let status = match client.watch_run(GetRunRequest { run: run.to_owned() }).await {
            Ok(reply) => {
                let mut updates = reply.into_inner();
                loop {
                    match timeout(LOOK_AGAIN, updates.message()).await {
                        Ok(Ok(Some(update))) => {
                            away = None;
                            show(&update, &mut printer, bars.as_mut(), output)?;
                            if let Some(verdict) = verdict(update.summary.as_ref(), output.json()) {
                                return verdict;
                            }
                            wait_state.run = update.summary;
                        }
                        Ok(Ok(None)) => break Status::unavailable("the coordinator closed the stream"),
                        Ok(Err(status)) => break status,
                        // A run for which nothing happens sends nothing.
                        Err(_) => {}
                    }
                    if let Some(reason) = wait_state.news(client, output).await {
                        print(&format!("waits: {reason}"), bars.as_ref(), output)?;
                    }
                }
            }
            Err(status) => status,
        };
        // What was never there is not waited for; what was there comes back.
        let since = *away.get_or_insert_with(Instant::now);
        if !printer.begun || !code_of(&status).retryable() || since.elapsed() > PATIENCE {
            return Err(status.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A run that waits, and the reason that was printed last.
#[derive(Default)]
struct WaitState {
    run: Option<RunSummary>,
    printed: Option<String>,
}

impl WaitState {
    /// The reason, where it differs from the one printed last.
    async fn news(&mut self, client: &mut Administration, output: &Output) -> Option<String> {
        let run = self.run.as_ref().filter(|run| !output.json() && why_waiting::waits(run))?;
        // The watch does not depend on it: a coordinator that is away shows at the stream.
        let reason = why_waiting::reason(client, run).await.ok()?;
        let is_news = reason != self.printed;
        self.printed.clone_from(&reason);
        reason.filter(|_| is_news)
    }
}

fn print(line: &str, bars: Option<&Bars>, output: &mut Output) -> Result<(), CliError> {
    let Some(bars) = bars else { return output.line(line) };
    bars.print(line);
    Ok(())
}

fn show(
    update: &RunUpdate,
    printer: &mut EventPrinter,
    bars: Option<&mut Bars>,
    output: &mut Output,
) -> Result<(), CliError> {
    let lines = printer.lines(update);
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

/// How the command ends, once the run has. A person has read
/// how it ended; a program reads it in the error.
fn verdict(summary: Option<&RunSummary>, json: bool) -> Option<Result<(), CliError>> {
    let summary = summary.filter(|summary| !summary.outcome.is_empty())?;
    Some(match summary.outcome.as_str() {
        "completed" => Ok(()),
        outcome => Err(CliError::failed(match json {
            true => format!("run {} ended: {outcome}", summary.run),
            false => format!("run {} did not complete", summary.run),
        })
        .hint(format!("`rondo run show {}` shows what happened", summary.run))),
    })
}

/// What was printed already, so that every change is printed once, across reconnections too.
#[derive(Debug, Default)]
struct EventPrinter {
    begun: bool,
    event: u64,
    outcome: bool,
}

impl EventPrinter {
    /// The lines that an update adds.
    fn lines(&mut self, update: &RunUpdate) -> Vec<String> {
        let mut lines = Vec::new();
        if let (Some(summary), false) = (&update.summary, self.begun) {
            lines.push(headline(summary));
            self.begun = true;
        }
        let latest = update.summary.as_ref().and_then(|summary| summary.latest.as_ref());
        for event in update.events.iter().filter(|event| event.sequence > self.event) {
            // The end of a round is printed once: from its record, where that is at hand.
            let record = latest.filter(|record| event.closes_round && record.round == event.round);
            lines.push(record.map_or_else(|| event_line(event), round_line));
        }
        self.event = update.events.iter().map(|event| event.sequence).fold(self.event, u64::max);
        if let Some(summary) = update.summary.as_ref().filter(|summary| !summary.outcome.is_empty() && !self.outcome) {
            let best = best(summary);
            // The run's own last event says how it ended.
            let event_says = update.events.last().is_some_and(|event| event.text.ends_with(&summary.outcome));
            match (best.is_empty(), event_says) {
                (false, _) => lines.push(format!("run {} ended: {}; best round {best}", summary.run, summary.outcome)),
                (true, false) => lines.push(format!("run {} ended: {}", summary.run, summary.outcome)),
                (true, true) => {}
            }
            self.outcome = true;
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rondo_proto::v1::{RoundRecord, RunEvent};

    fn event(sequence: u64, client: &str, text: &str) -> RunEvent {
        let client = client.to_owned();
        let text = text.to_owned();
        RunEvent { sequence, at_ms: 1_700_000_000_000, client, text, ..RunEvent::default() }
    }

    fn summary(outcome: &str, latest: Option<u32>) -> RunSummary {
        let latest = latest.map(|round| RoundRecord { round, kind: "training".to_owned(), ..RoundRecord::default() });
        let run = "r".to_owned();
        let outcome = outcome.to_owned();
        RunSummary { run, outcome, latest, ..RunSummary::default() }
    }

    #[test]
    fn every_change_is_printed_once() {
        let mut printer = EventPrinter::default();
        let first = RunUpdate { summary: Some(summary("", None)), events: vec![event(1, "a", "accepted")] };
        let lines = printer.lines(&first);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1], "22:13:20  a: accepted");
        // The same again, as after a reconnection.
        assert_eq!(printer.lines(&first), Vec::<String>::new());
        let events = vec![event(1, "a", "accepted"), event(2, "", "round 1 published")];
        let next = RunUpdate { summary: Some(summary("", None)), events };
        assert!(printer.lines(&next)[0].ends_with("round 1 published"));
        // A round's end is one line, from the latest
        // record; of a round before that, the event's own.
        let closes = |sequence, round| {
            let text = format!("round {round} closed: accuracy 0.5");
            RunEvent { round, closes_round: true, ..event(sequence, "", &text) }
        };
        let events = vec![closes(3, 1), closes(4, 2), event(5, "", "training round 3 starts")];
        let lines = printer.lines(&RunUpdate { summary: Some(summary("", Some(2))), events });
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].ends_with("round 1 closed: accuracy 0.5") && lines[1].contains("round 2 closed: 0 updates"));
        assert!(lines[2].ends_with("round 3 starts"));
        let last = RunUpdate { summary: Some(summary("completed", Some(1))), events: Vec::new() };
        assert_eq!(printer.lines(&last), ["run r ended: completed"]);
        assert_eq!(printer.lines(&last), Vec::<String>::new());
    }

    #[test]
    fn the_end_names_the_best_round_and_a_round_its_roll_back() {
        let best = RunSummary {
            best_round: Some(2),
            best_loss: Some(0.5),
            keep: "best".to_owned(),
            ..summary("completed", None)
        };
        let lines = EventPrinter::default().lines(&RunUpdate { summary: Some(best), events: Vec::new() });
        assert!(lines[1].ends_with("best round 2 (held-out loss 0.5000; it is what the run hands out)"), "{lines:?}");
        let record = RoundRecord {
            round: 3,
            rolled_back_to: Some(2),
            held_out_loss: Some(0.75),
            ended_at_ms: 1,
            ..Default::default()
        };
        let line = round_line(&record);
        assert!(line.contains("held-out loss 0.7500") && line.ends_with("rolled back to round 2"), "{line}");
    }

    #[test]
    fn a_failed_end_is_printed_once() {
        let end = event(1, "", "the run has ended: failed: no quorum");
        let update = RunUpdate { summary: Some(summary("failed: no quorum", None)), events: vec![end] };
        let lines = EventPrinter::default().lines(&update);
        assert_eq!(lines.iter().filter(|line| line.contains("no quorum")).count(), 1, "{lines:?}");
    }

    #[test]
    fn the_outcome_decides_the_exit() {
        assert!(verdict(Some(&summary("", None)), false).is_none());
        assert_eq!(verdict(Some(&summary("completed", None)), false), Some(Ok(())));
        for outcome in ["cancelled", "failed: no quorum"] {
            for json in [false, true] {
                let end = verdict(Some(&summary(outcome, None)), json).and_then(Result::err).map(|error| error.message);
                assert!(end.is_some_and(|message| message.contains(outcome) == json), "{outcome}");
            }
        }
    }
}
