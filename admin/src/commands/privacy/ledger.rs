//! `rondo privacy ledger`: what data owners reported of their ledgers, and the coordinator's own.

use rondo_proto::v1::{GetRunRequest, RoundRecord};
use serde::Serialize;

use crate::context::Context;
use crate::error::CliError;
use crate::output::table;
use crate::run_names::resolve;

#[derive(Debug, Serialize)]
struct Heads {
    run: String,
    heads: Vec<Reported>,
}

/// One client's ledger right after an update was entered, or the coordinator's after a release.
#[derive(Debug, Serialize)]
struct Reported {
    client: String,
    round: u32,
    ledger_head: String,
    /// Digest of the update; empty for a release, which is none.
    update: String,
}

/// Whose ledger has a release of unit client. No client can have a name with a space.
const COORDINATOR: &str = "the coordinator";

/// Asks the coordinator and prints the answer.
pub(super) async fn run(run: &str, context: &mut Context) -> Result<(), CliError> {
    let mut admin = context.administration().await?;
    let run = resolve(&mut admin, run).await?;
    let rounds = admin.list_rounds(GetRunRequest { run: run.clone() }).await?.into_inner().rounds;
    context.output.show(&Heads { run, heads: reported(&rounds) }, text)
}

fn reported(rounds: &[RoundRecord]) -> Vec<Reported> {
    let of_round = |record: &RoundRecord| {
        let round = record.round;
        let reports = record.participants.iter().filter_map(|client| Some((client, client.privacy.as_ref()?)));
        let heads = reports.map(|(client, report)| Reported {
            client: client.client.clone(),
            round,
            ledger_head: report.ledger_head.clone(),
            update: client.update_digest.clone(),
        });
        // One of an older coordinator, or of a round that has not released yet, has no head.
        let released = record.released.iter().filter(|report| !report.ledger_head.is_empty()).map(|report| Reported {
            client: COORDINATOR.to_owned(),
            round,
            ledger_head: report.ledger_head.clone(),
            update: String::new(),
        });
        heads.chain(released).collect::<Vec<_>>()
    };
    let mut heads: Vec<Reported> = rounds.iter().flat_map(of_round).collect();
    heads.sort_by(|left, right| (&left.client, left.round).cmp(&(&right.client, right.round)));
    heads
}

fn text(heads: &Heads) -> String {
    if heads.heads.is_empty() {
        return format!(
            "run {}: neither a client nor the coordinator has a ledger head for it (`rondo privacy show` shows the promise)",
            heads.run
        );
    }
    let row = |head: &Reported| {
        let update = if head.update.is_empty() { "-" } else { &head.update };
        vec![head.client.clone(), head.round.to_string(), head.ledger_head.clone(), update.to_owned()]
    };
    let titles = ["CLIENT", "ROUND", "LEDGER AFTER THE UPDATE", "UPDATE"];
    let rows = heads.heads.iter().map(row).collect();
    format!(
        "{}\na data owner, or whoever keeps the coordinator, compares: rondo-client ledger --dir DIR --entries\n",
        table(&titles, rows, "")
    )
}
