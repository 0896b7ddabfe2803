//! A demo's report as people read it on the terminal.

use std::fmt::Write as _;

use super::private;
use super::report::{MethodReport, Report, share};
use crate::paths::Paths;
use crate::records::Round;

/// The report for people.
pub(super) fn text(report: &Report, paths: &Paths) -> String {
    let mut out = String::new();
    for method in &report.methods {
        section(&mut out, method, paths);
    }
    match report.epsilon {
        Some(_) => private::comparison(&mut out, &report.methods),
        None if report.methods.len() > 1 => comparison(&mut out, &report.methods),
        None => {}
    }
    let _ = write!(out, "\n{:.0} s in all, setup and compilation left out.", report.seconds);
    out
}

fn section(out: &mut String, method: &MethodReport, paths: &Paths) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\n== {}: what it did ({:.0} s)\n", method.method, method.seconds);
    if method.clients.iter().any(|client| client.privacy.is_some()) {
        private::section(out, method);
    } else {
        accuracies(out, method);
    }
    let _ = writeln!(out, "\nBytes on the wire             up      formula         down      formula");
    for round in &method.rounds {
        let _ = writeln!(out, "  {}", title(round));
        for participant in &round.participants {
            let _ = writeln!(
                out,
                "    {:<16} {:>11} {:>12} {:>12} {:>12}   {}",
                participant.client,
                participant.bytes_up,
                participant.layout_bytes_up,
                participant.bytes_down,
                participant.layout_bytes_down,
                participant.reason,
            );
        }
    }
    let _ = writeln!(out, "\nThe adapter as a PEFT folder: {}", paths.show(&method.adapter));
}

fn accuracies(out: &mut String, method: &MethodReport) {
    let _ = writeln!(out, "Held-out accuracy      before   after   examples");
    for client in &method.clients {
        let before = share(client.before);
        let after = share(client.after);
        let _ = writeln!(out, "  {:<18} {before:>8} {after:>7} {:>10}", client.client, client.held_out);
    }
}

/// What a round was, how long it took, and how far its aggregate is from the dense weighted mean.
fn title(round: &Round) -> String {
    let name = if round.kind == "training" { format!("round {}", round.round) } else { round.kind.clone() };
    let seconds = (round.ended_at_ms - round.started_at_ms) as f64 / 1000.0;
    match round.aggregation_error {
        Some(error) => format!("{name}: {seconds:.0} s, aggregation error {error:.1e}"),
        None => format!("{name}: {seconds:.0} s"),
    }
}

fn comparison(out: &mut String, methods: &[MethodReport]) {
    let _ = writeln!(out, "\n== Methods side by side\n");
    let _ = writeln!(
        out,
        "method      mean accuracy   bytes up per client and round   largest aggregation error   seconds"
    );
    for method in methods {
        let after: Vec<f64> = method.clients.iter().filter_map(|client| client.after).collect();
        let mean = (!after.is_empty()).then(|| after.iter().sum::<f64>() / after.len() as f64);
        let error = method.rounds.iter().filter_map(|round| round.aggregation_error).reduce(f64::max);
        let error = error.map_or("-".to_owned(), |error| format!("{error:.1e}"));
        let _ = writeln!(
            out,
            "{:<11} {:>13} {:>31} {error:>27} {:>9.0}",
            method.method,
            share(mean),
            method.upload(),
            method.seconds
        );
    }
}
