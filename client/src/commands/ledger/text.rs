//! A ledger in words.

use std::io::{self, Write};

use rondo_dp::{Entry, ExamplePlan};
use time::OffsetDateTime;

use super::account::{Dated, DomainCost, DomainReport, LedgerReport, RunReport};

/// Prints all of it.
pub(super) fn print(account: &LedgerReport, out: &mut dyn Write) -> io::Result<()> {
    let path = account.ledger.display();
    if account.entries == 0 {
        return writeln!(out, "nothing was ever promised here: {path} has no entries");
    }
    writeln!(out, "ledger   {path}\nentries  {}\nhead     {}", account.entries, account.head)?;
    writeln!(
        out,
        "epsilon is counted by RDP at integer orders, for one example (in a coordinator's ledger one client), or nothing in \
         its place"
    )?;
    for domain in &account.domains {
        print_domain(domain, out)?;
        let runs: Vec<&RunReport> = account.runs.iter().filter(|run| run.domain == domain.domain).collect();
        if !runs.is_empty() {
            print_runs(&runs, out)?;
        }
        for run in account.central.iter().filter(|run| run.domain == domain.domain) {
            writeln!(out, "  released {} times by the coordinator, in run {}", run.releases.len(), run.run)?;
        }
    }
    let Some(history) = &account.history else { return Ok(()) };
    writeln!(out, "\nentries")?;
    history.iter().try_for_each(|dated| print_entry(dated, out))
}

fn print_domain(domain: &DomainReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\ndomain {}", domain.domain)?;
    match &domain.budget {
        Some(budget) => writeln!(
            out,
            "  budget  epsilon {} at delta {:e}, held at order {}",
            budget.epsilon, budget.delta, budget.order
        )?,
        None => writeln!(out, "  budget  none was declared")?,
    }
    for DomainCost { delta, spent, with_set_aside } in &domain.costs {
        writeln!(
            out,
            "  spent   epsilon {spent:.4} at delta {delta:e}; {with_set_aside:.4} with what is still set aside"
        )?;
    }
    Ok(())
}

const TITLES: [&str; 9] = ["RUN", "STATE", "NOISE", "RATE", "STEPS", "ROUNDS", "RELEASED", "EPSILON", "DELTA"];

fn print_runs(runs: &[&RunReport], out: &mut dyn Write) -> io::Result<()> {
    let row = |run: &&RunReport| {
        let plan = &run.plan;
        [
            run.run.clone(),
            if run.open { "open" } else { "closed" }.to_owned(),
            format!("{:.4}", plan.noise_multiplier),
            format!("{:.6}", plan.sampling_rate),
            plan.steps.to_string(),
            plan.rounds.to_string(),
            run.released.len().to_string(),
            format!("{:.4} of {}", run.epsilon, plan.epsilon),
            format!("{:e}", plan.delta),
        ]
    };
    let rows: Vec<[String; 9]> = std::iter::once(TITLES.map(str::to_owned)).chain(runs.iter().map(row)).collect();
    for row in &rows {
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:width$}", width = width(column)));
        writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn print_entry(Dated { number, head, entry }: &Dated, out: &mut dyn Write) -> io::Result<()> {
    let (at_ms, what) = match entry {
        Entry::Reserve { run, domain, plan, budget, at_ms } => {
            let held = budget.map_or_else(String::new, |budget| {
                format!(", within epsilon {} at delta {:e}", budget.epsilon, budget.delta)
            });
            let ExamplePlan { rounds, steps, noise_multiplier, sampling_rate, .. } = plan;
            let plan =
                format!("{rounds} rounds of {steps} steps, noise {noise_multiplier:.4}, rate {sampling_rate:.6}");
            (at_ms, format!("reserved for run {run} in domain {domain}{held}: {plan}"))
        }
        Entry::Spend { run, round, update, at_ms, .. } => {
            (at_ms, format!("released for run {run}, round {round}: {update}"))
        }
        // In the ledger of a coordinator, never in a client's.
        Entry::Release { run, domain, round, attempt, at_ms, .. } => {
            (at_ms, format!("noised sum released in domain {domain} for run {run}, round {round}, attempt {attempt}"))
        }
        Entry::Close { run, at_ms } => (at_ms, format!("closed run {run}")),
    };
    writeln!(out, "  {number}  {}  {what}\n  {:width$}  head {head}", moment(*at_ms), "", width = digits(*number))
}

fn digits(number: u64) -> usize {
    number.to_string().len()
}

/// A day and time in UTC.
fn moment(ms: i64) -> String {
    let Ok(at) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000) else {
        return format!("{ms} ms");
    };
    format!("{} {:02}:{:02}:{:02} UTC", at.date(), at.hour(), at.minute(), at.second())
}
