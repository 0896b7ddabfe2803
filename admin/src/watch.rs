//! `rondo run watch`: a run's changes as they happen.

mod bars;

use std::time::{Duration, Instant};

use rondo_proto::v1::{GetRunRequest, RoundRecord, RunEvent, RunSummary, RunUpdate};
use rondo_wire::status::code_of;
use tokio::time::timeout;
use tonic::Status;

use crate::commands::round::{number, totals};
use crate::commands::run::{best, uninvited};
use crate::context::Administration;
use crate::error::CliError;
use crate::output::Output;
use crate::text::{clock, relative_error, size, span};
use bars::Bars;

/// How long a coordinator may be away before watching is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// After so long without a change, a run that waits for clients is asked about again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Pause before the next attempt to reach it.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows a run until it ends. Fails when the run failed or was cancelled. A coordinator that restarts is waited for.
pub async fn watch(client: &mut Administration, run: &str, output: &mut Output) -> Result<(), CliError> {
    let mut story = Story::default();
    let mut bars = output.live().then(Bars::new);
    let mut away: Option<Instant> = None;
    let mut waiting = Waiting::default();
    loop {
        let status = match client.watch_run(GetRunRequest { run: run.to_owned() }).await {
            Ok(reply) => {
                let mut updates = reply.into_inner();
                loop {
                    match timeout(LOOK_AGAIN, updates.message()).await {
                        Ok(Ok(Some(update))) => {
                            away = None;
                            show(&update, &mut story, bars.as_mut(), output)?;
                            if let Some(verdict) = verdict(update.summary.as_ref(), output.json()) {
                                return verdict;
                            }
                            waiting.run = update.summary;
                        }
                        Ok(Ok(None)) => break Status::unavailable("the coordinator closed the stream"),
                        Ok(Err(status)) => break status,
                        // A run for which nothing happens sends nothing.
                        Err(_) => {}
                    }
                    if let Some(reason) = waiting.news(client, output).await {
                        tell(&format!("waits: {reason}"), bars.as_ref(), output)?;
                    }
                }
            }
            Err(status) => status,
        };
        // What was never there is not waited for; what was there comes back.
        let since = *away.get_or_insert_with(Instant::now);
        if !story.begun || !code_of(&status).retryable() || since.elapsed() > PATIENCE {
            return Err(status.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A run that waits, and what was last said of why nobody is invited.
#[derive(Default)]
struct Waiting {
    run: Option<RunSummary>,
    said: Option<String>,
}

impl Waiting {
    /// The reason, where it is another than the one said.
    async fn news(&mut self, client: &mut Administration, output: &Output) -> Option<String> {
        let run = self.run.as_ref().filter(|run| !output.json() && uninvited::waits(run))?;
        // The watch does not depend on it: a coordinator that is away shows at the stream.
        let reason = uninvited::reason(client, run).await.ok()?;
        let is_news = reason != self.said;
        self.said.clone_from(&reason);
        reason.filter(|_| is_news)
    }
}

fn tell(line: &str, bars: Option<&Bars>, output: &mut Output) -> Result<(), CliError> {
    let Some(bars) = bars else { return output.line(line) };
    bars.print(line);
    Ok(())
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

/// How the command ends, once the run has. People were told how it ended; a program reads it in the error.
fn verdict(summary: Option<&RunSummary>, json: bool) -> Option<Result<(), CliError>> {
    let summary = summary.filter(|summary| !summary.outcome.is_empty())?;
    Some(match summary.outcome.as_str() {
        "completed" => Ok(()),
        outcome => Err(CliError::failed(match json {
            true => format!("run {} ended: {outcome}", summary.run),
            false => format!("run {} did not complete", summary.run),
        })
        .hint(format!("`rondo run show {}` tells what happened", summary.run))),
    })
}

/// What was told already, so that every change is told once, across reconnections too.
#[derive(Debug, Default)]
struct Story {
    begun: bool,
    event: u64,
    outcome: bool,
}

impl Story {
    /// The lines that an update adds.
    fn lines(&mut self, update: &RunUpdate) -> Vec<String> {
        let mut lines = Vec::new();
        if let (Some(summary), false) = (&update.summary, self.begun) {
            lines.push(headline(summary));
            self.begun = true;
        }
        let latest = update.summary.as_ref().and_then(|summary| summary.latest.as_ref());
        for event in update.events.iter().filter(|event| event.sequence > self.event) {
            // The end of a round is told once: from its record, where that is at hand.
            let record = latest.filter(|record| event.closes_round && record.round == event.round);
            lines.push(record.map_or_else(|| event_line(event), round_line));
        }
        self.event = update.events.iter().map(|event| event.sequence).fold(self.event, u64::max);
        if let Some(summary) = update.summary.as_ref().filter(|summary| !summary.outcome.is_empty() && !self.outcome) {
            let best = best(summary);
            // The run's own last event tells how it ended.
            let event_tells = update.events.last().is_some_and(|event| event.text.ends_with(&summary.outcome));
            match (best.is_empty(), event_tells) {
                (false, _) => lines.push(format!("run {} ended: {}; best round {best}", summary.run, summary.outcome)),
                (true, false) => lines.push(format!("run {} ended: {}", summary.run, summary.outcome)),
                (true, true) => {}
            }
            self.outcome = true;
        }
        lines
    }
}

/// What run it is.
fn headline(run: &RunSummary) -> String {
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
        let next = RunUpdate { summary: Some(summary("", None)), events };
        assert!(story.lines(&next)[0].ends_with("round 1 published"));
        // A round's end is one line, from the latest record; of a round before that, the event's own.
        let closes = |sequence, round| {
            let text = format!("round {round} closed: accuracy 0.5");
            RunEvent { round, closes_round: true, ..event(sequence, "", &text) }
        };
        let events = vec![closes(3, 1), closes(4, 2), event(5, "", "training round 3 starts")];
        let lines = story.lines(&RunUpdate { summary: Some(summary("", Some(2))), events });
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].ends_with("round 1 closed: accuracy 0.5") && lines[1].contains("round 2 closed: 0 updates"));
        assert!(lines[2].ends_with("round 3 starts"));
        let last = RunUpdate { summary: Some(summary("completed", Some(1))), events: Vec::new() };
        assert_eq!(story.lines(&last), ["run r ended: completed"]);
        assert_eq!(story.lines(&last), Vec::<String>::new());
    }

    #[test]
    fn the_end_names_the_best_round_and_a_round_its_roll_back() {
        let best = RunSummary {
            best_round: Some(2),
            best_loss: Some(0.5),
            keep: "best".to_owned(),
            ..summary("completed", None)
        };
        let lines = Story::default().lines(&RunUpdate { summary: Some(best), events: Vec::new() });
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
    fn a_failed_end_is_told_once() {
        let end = event(1, "", "the run has ended: failed: no quorum");
        let update = RunUpdate { summary: Some(summary("failed: no quorum", None)), events: vec![end] };
        let lines = Story::default().lines(&update);
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
