//! The words of a declaration.

use std::fmt::Write;

use rondo_dp::{LedgerError, RunAccount};
use rondo_proto::clock::unix_millis;
use rondo_proto::run_file::RunFile;
use rondo_wire::identity::{Fingerprint, Identity};

use crate::commands::history::moment;
use crate::config::{Approval, Config, PolicyConfig};
use crate::history::Contents;
use crate::terms::{Standing, Terms};
use crate::what_leaves::{self, Row, RunKind};

/// What a declaration is made from.
pub(super) struct Facts {
    pub(super) terms: Terms,
    pub(super) run: RunFile,
    pub(super) identity: Identity,
    pub(super) config: Config,
    pub(super) history: Contents,
    /// The run's account in the privacy ledger.
    pub(super) account: Option<RunAccount>,
}

/// The page, Markdown.
pub(super) fn page(facts: &Facts) -> Result<String, LedgerError> {
    let Facts { terms, run, identity, config, history, account } = facts;
    let mut page = format!("# Declaration on run {}\n\n", terms.run);
    let taken = match terms.standing {
        Standing::Accepted => "takes, or took, part in",
        Standing::Declined => "declined, or left,",
        Standing::Undecided => "was asked to take part in, and has not decided on,",
    };
    page += &format!(
        "Made on {} by `rondo-client declare` from the records of this site alone. The client {:?} {taken} a federated \
         fine-tuning: it trains a small part of a language model (an adapter) on its own rows, and sends the adapter, not the \
         rows.\n\n",
        moment(unix_millis()),
        identity.name,
    );
    let authority = Fingerprint::of_pem(&identity.ca_pem).map(|digest| digest.to_string());
    page += &format!(
        "- Coordinator: {}; SHA-256 of its certificate authority {}\n",
        identity.url,
        authority.unwrap_or_else(|| "unknown".to_owned())
    );
    page += &format!(
        "- Run: {:?} (id {}), asked for on {}; method {}, {} rounds of {} steps of {} rows.\n",
        run.name,
        terms.run,
        moment(terms.asked_ms),
        run.method.id,
        run.rounds.count,
        run.train.local_steps,
        run.train.batch,
    );
    page += &format!("- Base model: {} ({}); it stays on this machine.\n", terms.base, terms.base_digest);
    page += &format!(
        "- Data: data set {:?} of this site; {} rows are trained on, {} rows are held out and only measured on.\n",
        terms.dataset, terms.train_rows, terms.held_out_rows
    );
    page += &format!("- Digest of these terms: {}\n\n", terms.digest());
    page += &privacy(run, account.as_ref())?;
    page += &sent(terms, history);
    page += &leaves(run, &config.policy);
    page += &limits(config);
    Ok(page)
}

fn kind_of(run: &RunFile) -> RunKind {
    match &run.privacy {
        None => RunKind::Plain,
        Some(asked) if asked.is_per_client() => RunKind::UnitClient,
        Some(_) => RunKind::UnitExample,
    }
}

fn privacy(run: &RunFile, account: Option<&RunAccount>) -> Result<String, LedgerError> {
    let mut text = "## Privacy\n\n".to_owned();
    let Some(asked) = &run.privacy else {
        text += "The run makes no promise of differential privacy: updates are sent as they are, and somebody who holds one \
                 may learn something about the rows behind it.\n\n";
        return Ok(text);
    };
    let (epsilon, delta, clip) = (asked.epsilon, asked.delta, asked.clip);
    text += match kind_of(run) {
        RunKind::UnitClient => {
            "Differential privacy for the whole contribution of a site: the coordinator receives each update without noise, \
             and adds noise to the sum before anybody else sees it."
        }
        _ => {
            "Differential privacy for every single row: noise is added on this machine before anything is sent, so that nobody \
             can tell, up to the figures below, whether a given row was used."
        }
    };
    let _ = writeln!(text, " The run may spend epsilon {epsilon} at delta {delta:e}; clip norm {clip}.");
    if let Some(account) = account {
        let spent = account.released.epsilon_enforced(account.plan.delta)?;
        let count = account.updates.len();
        let open = if account.closed { "the run is over here" } else { "the run may still spend" };
        let _ = writeln!(
            text,
            "By the privacy ledger of this site {count} updates were released at a cost of epsilon {spent:.4}; {open}."
        );
    }
    Ok(text + "\n")
}

fn sent(terms: &Terms, history: &Contents) -> String {
    let mut text = "## What was sent\n\n".to_owned();
    match history.since_ms {
        None => return text + "No record of what was sent is kept here yet.\n\n",
        Some(since) => {
            let _ = writeln!(text, "Recorded since {}.\n", moment(since));
        }
    }
    let of_run = || history.sent.iter().filter(|sent| sent.message.run == terms.run.as_str());
    let sums = || history.summaries.iter().filter(|sum| sum.run == terms.run.as_str());
    if of_run().next().is_none() && sums().next().is_none() {
        return text + "Nothing is recorded as sent for this run.\n\n";
    }
    text += "| time | kind | round | bytes | BLAKE3 digest | confirmed |\n|---|---|---|---|---|---|\n";
    for sum in sums() {
        let (first, last) = (moment(sum.first_ms), moment(sum.last_ms));
        let kind = sum.what.as_str();
        let _ = writeln!(text, "| {first} to {last} | {} x {kind} | - | {} | - | - |", sum.count, sum.bytes);
    }
    for sent in of_run() {
        let m = &sent.message;
        let confirmed = if sent.taken_ms.is_some() { "yes" } else { "no" };
        let kind = m.what.as_str();
        let _ = writeln!(
            text,
            "| {} | {kind} | {} | {} | {} | {confirmed} |",
            moment(sent.sent_ms),
            m.round,
            m.bytes,
            m.digest
        );
    }
    let bytes = of_run().map(|sent| sent.message.bytes).sum::<u64>() + sums().map(|sum| sum.bytes).sum::<u64>();
    text + &format!(
        "\nTogether {bytes} bytes. Polls and heartbeats, which say how far the work is, are not listed.\n\n"
    )
}

/// Whether a field is sent in a run of this kind, with this client.toml.
fn is_sent(row: &Row, kind: RunKind, policy: &PolicyConfig) -> bool {
    let by_choice = match row.sent_in(kind) {
        "yes" => return true,
        "by choice" | "public data" | "public data, by choice" => policy.report_metrics,
        _ => false,
    };
    by_choice && (policy.report_groups || !row.field.starts_with("GroupEvaluation."))
}

fn leaves(run: &RunFile, policy: &PolicyConfig) -> String {
    let mut text = "## What such a run sends, who reads it, how long it is kept\n\n".to_owned();
    text += "Rows, texts, labels, file names and the base model are in no message. With the client.toml of today:\n\n";
    text += "| what | read by | kept by the coordinator | deleted |\n|---|---|---|---|\n";
    let mut seen = Vec::new();
    for row in what_leaves::rows().into_iter().filter(|row| is_sent(row, kind_of(run), policy)) {
        let Row { what, read_by, kept, deleted, .. } = row;
        let of_public = row.sent_in(kind_of(run)).starts_with("public data");
        let note = if of_public { " (of public data alone, if the run measures here)" } else { "" };
        let line = format!("| {what}{note} | {read_by} | {kept} | {deleted} |\n");
        if !seen.contains(&line) {
            text += &line;
            seen.push(line);
        }
    }
    text + "\n\"With the data folder\": no command deletes a run or a client at the coordinator; its records go when whoever runs \
            it deletes the data folder. Asking for that is a matter between the site and the operators.\n\n"
}

fn limits(config: &Config) -> String {
    let policy = &config.policy;
    let asks = match policy.approve {
        Approval::Auto => "the policy alone decides on runs",
        Approval::Ask => "a person here decides on each run",
    };
    let metrics = match (policy.report_metrics, policy.report_groups) {
        (false, _) => "losses and accuracies are withheld".to_owned(),
        (true, false) => "losses and accuracies are reported as a whole, not by group".to_owned(),
        (true, true) => format!("results by group are reported, of at least {} rows", policy.min_group),
    };
    let private = if policy.require_privacy { "runs without privacy are declined" } else { "privacy is not asked for" };
    let mut text = format!("## Limits of this site\n\n- {asks}; {metrics}; {private}.\n");
    for (what, limit) in [
        ("rounds", policy.max_rounds),
        ("steps per round", policy.max_local_steps),
        ("rows per step", policy.max_batch),
        ("tokens per text", policy.max_tokens),
        ("adapter rank", config.limits.max_rank),
    ] {
        if limit > 0 {
            let _ = writeln!(text, "- at most {limit} {what}");
        }
    }
    for budget in &config.privacy {
        let _ = writeln!(
            text,
            "- all runs together may spend epsilon {} at delta {:e} on the data of {:?}",
            budget.epsilon, budget.delta, budget.domain
        );
    }
    text
}
