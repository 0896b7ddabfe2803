//! The live view: a bar for the run, and one for each client of the round.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rondo_proto::v1::{Participant, RunSummary};

use crate::render::round::{number, totals};
use crate::text::{relative_error, size};

/// Clients that get a bar of their own; of larger cohorts the first, by name.
const MOST: usize = 24;

/// Bars on a terminal.
pub(super) struct Bars {
    all: MultiProgress,
    run: ProgressBar,
    clients: BTreeMap<String, ProgressBar>,
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

impl Bars {
    pub(super) fn new() -> Self {
        Self::on(ProgressDrawTarget::stdout())
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let run = all.add(ProgressBar::new(1));
        run.set_style(style("{prefix:.bold} [{bar:30}] {pos}/{len} rounds, {elapsed}  {msg}"));
        Self { all, run, clients: BTreeMap::new() }
    }

    /// Prints a line above the bars.
    pub(super) fn print(&self, line: &str) {
        // A terminal that went away is noticed when the command ends.
        let _ = self.all.println(line);
    }

    /// Draws the run as it stands.
    pub(super) fn show(&mut self, summary: &RunSummary) {
        let closed = summary.latest.as_ref().map_or(0, |record| u64::from(record.round));
        self.run.set_length(u64::from(summary.rounds));
        self.run.set_position(closed);
        self.run.set_prefix(summary.run.clone());
        self.run.set_message(run_message(summary));
        let record = summary.open.as_ref().or(summary.latest.as_ref());
        let shown: Vec<&Participant> = record.into_iter().flat_map(|record| &record.participants).take(MOST).collect();
        // A later round may have another cohort.
        self.clients.retain(|name, bar| {
            let stays = shown.iter().any(|participant| participant.client == *name);
            if !stays {
                self.all.remove(bar);
            }
            stays
        });
        shown.into_iter().for_each(|participant| self.client(participant));
        if !summary.outcome.is_empty() {
            self.clients.values().for_each(ProgressBar::abandon);
            self.run.abandon();
        }
    }

    fn client(&mut self, participant: &Participant) {
        let bar = self.clients.entry(participant.client.clone()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(1));
            bar.set_style(style("  {prefix:16} [{bar:20}] {msg}"));
            bar.set_prefix(participant.client.clone());
            bar
        });
        let (position, length) = progress(participant);
        bar.set_length(length);
        bar.set_position(position);
        bar.set_message(client_message(participant));
    }
}

/// Steps done and to do; an accepted update fills its bar, whatever the last heartbeat said.
fn progress(participant: &Participant) -> (u64, u64) {
    let length = u64::from(participant.steps.max(1));
    let position = if participant.state == "accepted" { length } else { u64::from(participant.step) };
    (position.min(length), length)
}

fn run_message(summary: &RunSummary) -> String {
    let mut parts = vec![if summary.paused { format!("{} (paused)", summary.phase) } else { summary.phase.clone() }];
    if let Some(open) = &summary.open {
        parts[0] = format!("{} round {}", parts[0], open.round);
    }
    if let Some(latest) = &summary.latest {
        let sums = totals(latest);
        parts.push(format!("loss {}", number(sums.loss, 4)));
        match sums.perplexity {
            Some(perplexity) => parts.push(format!("perplexity {perplexity:.2}")),
            None => parts.push(format!("accuracy {}", number(sums.accuracy, 4))),
        }
        parts.push(format!("error {}", relative_error(latest.aggregation_error)));
    }
    if let Some(best) = summary.best_round {
        parts.push(format!("best round {best}"));
    }
    parts.join("  ")
}

fn client_message(client: &Participant) -> String {
    let mut parts = vec![format!("{:9}", client.state)];
    if client.steps > 0 {
        parts.push(format!("step {}/{}", client.step, client.steps));
    }
    if client.train_loss != 0.0 {
        parts.push(format!("loss {:.4}", client.train_loss));
    }
    if let Some(evaluation) = client.after.as_ref().or(client.before.as_ref()) {
        parts.push(format!("accuracy {:.4}", evaluation.accuracy));
    }
    if client.bytes_up + client.bytes_down > 0 {
        parts.push(format!("up {} down {}", size(client.bytes_up), size(client.bytes_down)));
    }
    if !client.reason.is_empty() {
        parts.push(client.reason.clone());
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rondo_proto::v1::{Evaluation, RoundRecord};

    #[test]
    fn bars_are_those_of_the_present_cohort() {
        let mut bars = Bars::on(ProgressDrawTarget::hidden());
        let cohort = |clients: &[&str]| {
            let participant = |client: &&str| Participant { client: (*client).to_owned(), ..Participant::default() };
            let participants = clients.iter().map(participant).collect();
            RunSummary { open: Some(RoundRecord { participants, ..RoundRecord::default() }), ..RunSummary::default() }
        };
        for clients in [&["a", "b"][..], &["b", "c"], &[], &["a"]] {
            bars.show(&cohort(clients));
            assert_eq!(bars.clients.keys().collect::<Vec<_>>(), clients);
        }
    }

    #[test]
    fn a_client_shows_state_loss_accuracy_and_bytes() {
        let client = Participant {
            client: "a".to_owned(),
            state: "training".to_owned(),
            step: 3,
            steps: 20,
            train_loss: 0.5,
            bytes_up: 2048,
            before: Some(Evaluation { accuracy: 0.75, ..Evaluation::default() }),
            ..Participant::default()
        };
        assert_eq!(progress(&client), (3, 20));
        assert_eq!(client_message(&client), "training   step 3/20  loss 0.5000  accuracy 0.7500  up 2.0 KiB down 0 B");
        assert_eq!(progress(&Participant { state: "accepted".to_owned(), ..client }), (20, 20));
        assert_eq!(progress(&Participant::default()), (0, 1));
    }
}
