//! `rondo privacy show`: a run's promise and what it has cost so far.

use rondo_dp::{Privacy, Terms};
use rondo_proto::run_file::{PrivacyChoice, RunFile};
use rondo_proto::v1::{GetRunRequest, PrivacyReport, RoundRecord};
use serde::Serialize;

use super::figures::shown;
use super::schedule::ADJACENCY;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{facts, table};
use crate::run_names::resolve;

/// A run's promise and its costs.
#[derive(Debug, Serialize)]
struct Account {
    run: String,
    /// The promise in one line; "no privacy" without one.
    statement: String,
    promise: Privacy,
    costs: Vec<Cost>,
    /// The cost that is the largest.
    most: Option<Cost>,
}

/// What an update cost its data owner, or a round every client, with all of the run before it.
#[derive(Debug, Clone, Serialize)]
struct Cost {
    round: u32,
    client: String,
    #[serde(flatten)]
    report: PrivacyReport,
}

/// Asks the coordinator and prints the answer.
pub(super) async fn run(run: &str, context: &mut Context) -> Result<(), CliError> {
    let mut admin = context.administration().await?;
    let run = resolve(&mut admin, run).await?;
    let reply = admin.get_run(GetRunRequest { run: run.clone() }).await?.into_inner();
    let promise = promise(&reply.run_file)?;
    let rounds = admin.list_rounds(GetRunRequest { run: run.clone() }).await?.into_inner().rounds;
    let costs = costs(&rounds);
    let most = costs.iter().max_by(|left, right| left.report.epsilon.total_cmp(&right.report.epsilon)).cloned();
    // As the coordinator has it: with the noise, the cohorts and what was spent.
    let statement = reply.summary.map_or_else(|| promise.statement(), |summary| summary.privacy);
    context.output.show(&Account { run, statement, promise, costs, most }, text)
}

/// The guarantee that a run file asks for. Every key by name, so that none can be forgotten.
fn promise(run_file: &str) -> Result<Privacy, CliError> {
    let Some(asked) = RunFile::parse(run_file)?.privacy else { return Ok(Privacy::None) };
    let PrivacyChoice { ref unit, epsilon, delta, clip, noise_multiplier, sampling_rate, clip_quantile, warm_up_clip } =
        asked;
    Privacy::new(unit, Terms { epsilon, delta, clip, noise_multiplier, sampling_rate, clip_quantile, warm_up_clip })
        .map_err(|error| CliError::failed(error.to_string()))
}

/// Every report that came with an update, by round and client.
fn costs(rounds: &[RoundRecord]) -> Vec<Cost> {
    let of_round = |record: &RoundRecord| {
        let round = record.round;
        let reports = record.participants.iter().filter_map(|client| Some((client, client.privacy.as_ref()?)));
        // Unit client: one release for all, by the coordinator.
        let released = record.released.iter().map(|report| cost(round, "every client", report));
        reports.map(|(client, report)| cost(round, &client.client, report)).chain(released).collect::<Vec<_>>()
    };
    let mut costs: Vec<Cost> = rounds.iter().flat_map(of_round).collect();
    costs.sort_by(|left, right| (left.round, &left.client).cmp(&(right.round, &right.client)));
    costs
}

fn cost(round: u32, client: &str, report: &PrivacyReport) -> Cost {
    Cost { round, client: client.to_owned(), report: report.clone() }
}

fn text(account: &Account) -> String {
    let (unit, epsilon, delta, clip, noise) = match account.promise {
        Privacy::None => {
            return format!(
                "run {}: no privacy\nnothing is promised to data owners, and no noise is added",
                account.run
            );
        }
        Privacy::Example { epsilon, delta, clip, noise_multiplier, .. } => {
            let noise = match noise_multiplier {
                Some(noise) => format!("{noise} times the clip, at every client"),
                None => "at every client the least that spends epsilon over all rounds".to_owned(),
            };
            (format!("example: {ADJACENCY}, each step on a Poisson sample"), epsilon, delta, clip.to_string(), noise)
        }
        Privacy::Client { epsilon, delta, clip, noise_multiplier, clip_quantile, .. } => {
            let noise = match noise_multiplier {
                Some(noise) => format!("{noise} times the clip, at the coordinator"),
                None => "at the coordinator the least that spends epsilon over all rounds".to_owned(),
            };
            let clip = match clip_quantile {
                Some(quantile) => format!("{clip} at first, then towards quantile {quantile} of the changes' norms"),
                None => clip.to_string(),
            };
            ("client: all that one client contributes, or nothing in its place".to_owned(), epsilon, delta, clip, noise)
        }
    };
    let clip = match account.promise.warm_up_clip() {
        Some(warm_up) => format!("{clip}; {warm_up} in the warm-up"),
        None => clip,
    };
    let mut text = facts(&[
        ("run", account.run.clone()),
        ("promise", account.statement.clone()),
        ("unit", unit),
        ("epsilon", epsilon.to_string()),
        ("delta", format!("{delta:e}")),
        ("clip", clip),
        ("noise", noise),
        ("accountant", "RDP at integer orders is enforced; PLD, tighter, is reported beside it".to_owned()),
    ]);
    let row = |Cost { round, client, report: cost }: &Cost| {
        let next = if cost.next_epsilon > epsilon { " (not allowed)" } else { "" };
        vec![
            round.to_string(),
            client.clone(),
            format!("{:.4}", cost.clip),
            format!("{:.4}", cost.noise_multiplier),
            format!("{:.6}", cost.sampling_rate),
            cost.steps.to_string(),
            cost.total_steps.to_string(),
            shown(cost.epsilon),
            shown(cost.epsilon_pld),
            format!("{}{next}", shown(cost.next_epsilon)),
        ]
    };
    let titles = [
        "ROUND",
        "CLIENT",
        "CLIP",
        "NOISE",
        "RATE",
        "STEPS",
        "TOTAL",
        "EPSILON (RDP)",
        "EPSILON (PLD)",
        "AFTER ONE MORE",
    ];
    text +=
        &format!("\n{}", table(&titles, account.costs.iter().map(row).collect(), "nothing has been released yet\n"));
    if let Some(Cost { round, client, report: PrivacyReport { epsilon: spent, epsilon_pld, .. } }) = &account.most {
        text += &format!(
            "\nthe most that any data owner spent: {} of {epsilon} ({} by PLD), {client}, as of round {round}\n",
            shown(*spent),
            shown(*epsilon_pld)
        );
    }
    text
}
