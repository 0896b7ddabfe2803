//! A private run's part of the demo: what every data owner
//! spent, and accuracies that no run may report.
//!
//! With privacy no client measures for the coordinator. Here the data owners are all on one machine
//! and the demo is theirs, so each measures the exported adapter on its own held-out rows, offline.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::report::{ClientReport, MethodReport, share};
use crate::federation::Federation;
use crate::paths::Paths;

/// Held-out rows of every client, as its client.toml says.
const HELD_OUT: f64 = 0.1;
/// The mean accuracy of fed-sb and ffa-lora is above
/// the larger class's share by this much at least.
const GAIN: f64 = 0.1;

/// Measures a private run's adapter with every data owner.
pub(super) fn measure(
    paths: &Paths,
    federation: &Federation,
    report: &mut MethodReport,
    limit: Option<u32>,
) -> Result<()> {
    for client in &mut report.clients {
        let measured = federation.evaluate(paths, &client.client, &report.adapter, HELD_OUT, limit)?;
        client.after = Some(measured.accuracy);
        client.held_out = measured.examples;
        client.majority = Some(majority(&federation.data(&client.client))?);
    }
    Ok(())
}

/// The share of the larger class in a client's rows.
fn majority(table: &Path) -> Result<f64> {
    let text = std::fs::read_to_string(table).with_context(|| format!("cannot read {}", table.display()))?;
    let labels: Vec<&str> = text.lines().skip(1).filter_map(|line| line.rsplit('\t').next()).collect();
    let positive = labels.iter().filter(|label| **label == "positive").count();
    Ok(positive.max(labels.len() - positive) as f64 / labels.len().max(1) as f64)
}

/// The table of one private run.
pub(super) fn section(out: &mut String, method: &MethodReport) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "Client               larger class   accuracy   examples   epsilon (RDP)   epsilon (PLD)    noise   sampling   steps"
    );
    for client in &method.clients {
        let Some(spent) = &client.privacy else { continue };
        let _ = writeln!(
            out,
            "  {:<18} {:>12} {:>10} {:>10} {:>15.4} {:>15.4} {:>8.4} {:>10.4} {:>7}",
            client.client,
            share(client.majority),
            share(client.after),
            client.held_out,
            spent.epsilon,
            spent.epsilon_pld,
            spent.noise_multiplier,
            spent.sampling_rate,
            spent.total_steps,
        );
    }
}

/// The methods of a private demo side by side.
pub(super) fn comparison(out: &mut String, methods: &[MethodReport]) {
    let _ = writeln!(out, "\n== Methods side by side\n");
    let _ =
        writeln!(out, "method      rank   largest epsilon   mean accuracy   bytes up per client and round   seconds");
    for method in methods {
        let _ = writeln!(
            out,
            "{:<11} {:>4} {:>17.4} {:>15} {:>31} {:>9.0}",
            method.method,
            method.rank(),
            largest(&method.clients),
            share(mean(&method.clients, |client| client.after)),
            method.upload(),
            method.seconds,
        );
    }
    if let Some(method) = methods.first() {
        let majority = share(mean(&method.clients, |client| client.majority));
        let _ = writeln!(out, "the larger class alone would be right {majority} of the time");
    }
}

/// What a private run misses, in words.
pub(super) fn misses(method: &MethodReport, epsilon: f64, fast: bool, misses: &mut Vec<String>) {
    let id = &method.method;
    let spent = largest(&method.clients);
    if !(spent > 0.0 && spent <= epsilon) {
        misses.push(format!("{id}: a client spent epsilon {spent}, and {epsilon} was promised"));
    }
    if method.clients.iter().any(|client| client.privacy.is_none()) {
        misses.push(format!("{id}: a client gave no account of what it spent"));
    }
    let after = mean(&method.clients, |client| client.after);
    let majority = mean(&method.clients, |c| c.majority);
    let (Some(after), Some(majority)) = (after, majority) else {
        misses.push(format!("{id}: not every client was measured"));
        return;
    };
    if !fast && id != "fedit" && after < majority + GAIN {
        misses.push(format!("{id}: mean accuracy {after:.3}, and the larger class is {majority:.3}"));
    }
}

fn largest(clients: &[ClientReport]) -> f64 {
    clients.iter().filter_map(|client| client.privacy.as_ref()).map(|spent| spent.epsilon).fold(0.0, f64::max)
}

fn mean(clients: &[ClientReport], of: impl Fn(&ClientReport) -> Option<f64>) -> Option<f64> {
    let all: Option<Vec<f64>> = clients.iter().map(of).collect();
    all.filter(|all| !all.is_empty()).map(|all| all.iter().sum::<f64>() / all.len() as f64)
}
