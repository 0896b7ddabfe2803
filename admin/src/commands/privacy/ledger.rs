//! `rondo privacy ledger`: what data owners reported of their ledgers.

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

/// One client's ledger right after an update was entered.
#[derive(Debug, Serialize)]
struct Reported {
    client: String,
    round: u32,
    ledger_head: String,
    /// Digest of the update.
    update: String,
}

/// Asks and tells.
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
        heads.collect::<Vec<_>>()
    };
    let mut heads: Vec<Reported> = rounds.iter().flat_map(of_round).collect();
    heads.sort_by(|left, right| (&left.client, left.round).cmp(&(&right.client, right.round)));
    heads
}

fn text(heads: &Heads) -> String {
    if heads.heads.is_empty() {
        return format!(
            "run {}: no client has reported a ledger head (`rondo privacy show` tells the promise)",
            heads.run
        );
    }
    let row = |head: &Reported| {
        vec![head.client.clone(), head.round.to_string(), head.ledger_head.clone(), head.update.clone()]
    };
    let titles = ["CLIENT", "ROUND", "LEDGER AFTER THE UPDATE", "UPDATE"];
    let rows = heads.heads.iter().map(row).collect();
    format!("{}\na data owner compares: rondo-client ledger --dir DIR --entries\n", table(&titles, rows, ""))
}
