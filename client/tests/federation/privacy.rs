//! A client with privacy is killed again and again: what left it
//! stands in its ledger, and the run still ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rondo_coordinator::config::Config;
use rondo_dp::{Ledger, LedgerState};
use rondo_proto::v1;

use crate::client::{Client, model_dir, run_file};
use crate::coordinator::{Coordinator, Shifted};

const DELTA: f64 = 1e-3;
/// `RONDO_KILLS=200` makes it long.
const KILLS: u32 = 12;

/// A run with this privacy for every example, and so many rounds of two steps.
fn private(base: &v1::BaseModel, rounds: u32, privacy: &str) -> String {
    let tables = format!(
        "train = {{ local_steps = 2, batch = 8, lr = 1e-2 }}\n\
         rounds = {{ count = {rounds}, cohort = 1, quorum = 1, deadline_s = 600 }}\n\
         privacy = {{ unit = \"example\", delta = {DELTA}, clip = 1.0, {privacy} }}"
    );
    run_file(base, "ffa-lora", &tables)
}

fn ledger(client: &Client) -> LedgerState {
    Ledger::read(&client.dir.join("ledger.jsonl")).map(|read| read.state).unwrap_or_default()
}

/// Digests of uploads of which any byte came.
fn came(staging: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(staging).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            came(&path, found);
        } else if let Some((_, digest)) = path.file_name().unwrap().to_string_lossy().split_once('.') {
            found.insert(digest.to_owned());
        }
    }
}

/// Bytes that reached the coordinator, whole or in part, are bytes that the ledger has: what lies
/// in staging, and what was accepted of the run. Adds what was found.
async fn assert_entered(data: &Path, coordinator: &Coordinator, run: &str, client: &Client, found: &mut Found) {
    let state = ledger(client);
    let entered: BTreeSet<&str> = state
        .runs
        .values()
        .flat_map(|run| run.updates.keys())
        .map(|digest| digest.trim_start_matches("blake3:"))
        .collect();
    let mut staged = BTreeSet::new();
    came(&data.join("staging/uploads"), &mut staged);
    let records = coordinator.rounds(run).await;
    let parts = records.iter().flat_map(|record| &record.participants);
    let accepted: BTreeSet<String> =
        parts.map(|part| part.update_digest.clone()).filter(|digest| !digest.is_empty()).collect();
    for digest in staged.iter().chain(&accepted) {
        let bare = digest.trim_start_matches("blake3-").trim_start_matches("blake3:");
        assert!(entered.contains(bare), "{bare} left and is not in the ledger: {entered:?}");
    }
    found.staged.extend(staged);
    found.accepted.extend(accepted);
}

/// What was ever found at the coordinator, so that a test can see that it looked at something.
#[derive(Default)]
struct Found {
    staged: BTreeSet<String>,
    accepted: BTreeSet<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_left_a_client_that_is_killed_again_and_again_is_in_its_ledger() {
    let kills = std::env::var("RONDO_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    // One round takes a client half a second; it is killed some times a round.
    let rounds = (kills / 4).max(4);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let coordinator = Coordinator::new(&data, Config::default(), Arc::<Shifted>::default());
    let base = rondo_base::describe(&model_dir(), "tiny").unwrap();
    let mut client = Client::join(&coordinator, dir.path(), "books").await;
    coordinator.until_seen("books").await;
    let run = coordinator.create_run(base.clone(), private(&base, rounds, "epsilon = 20.0")).await;
    // Not random, but as good as: the points fall everywhere from
    // the start of the process to the end of a round.
    let mut wait = 7_u64;
    let mut found = Found::default();
    for _ in 0..kills {
        wait = wait * 48_271 % 2_147_483_647;
        tokio::time::sleep(Duration::from_millis(50 + wait % 900)).await;
        client.kill();
        assert_entered(&data, &coordinator, &run, &client, &mut found).await;
        client = Client::start("books", client.dir.clone());
    }
    let ended = coordinator.until(&run, "the run ends", |run| !run.outcome.is_empty()).await;
    assert_eq!(ended.outcome, "completed");
    assert_entered(&data, &coordinator, &run, &client, &mut found).await;
    eprintln!("{} uploads were found under way, {} accepted", found.staged.len(), found.accepted.len());
    assert_eq!(found.accepted.len() as u32, rounds, "every round's update was looked up in the ledger");

    let account = &ledger(&client).runs[&run];
    let records = coordinator.rounds(&run).await;
    let mut counted = BTreeMap::new();
    for record in records.iter().filter(|record| record.kind == "training") {
        let part = &record.participants[0];
        assert_eq!(account.updates.get(&part.update_digest), Some(&record.round), "round {}", record.round);
        let report = part.privacy.as_ref().unwrap();
        assert!(report.epsilon <= 20.0 && report.epsilon_pld <= report.epsilon, "{report:?}");
        counted.insert(record.round, report.epsilon);
        assert_eq!((part.examples, part.train_loss, part.train_seconds), (0, 0.0, 0.0));
        assert!(part.before.is_none() && part.after.is_none());
    }
    assert_eq!(counted.len() as u32, rounds);
    // A kill costs nothing: what was released once is sent again, what was not was never charged.
    assert_eq!(account.updates.len() as u32, rounds);
    assert!(counted.values().is_sorted(), "{counted:?}");
    let spent = account.released.epsilon_enforced(DELTA).unwrap();
    assert_eq!(counted[&rounds], spent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_warm_up_stands_in_the_ledger_before_the_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let coordinator = Coordinator::new(&data, Config::default(), Arc::<Shifted>::default());
    let base = rondo_base::describe(&model_dir(), "tiny").unwrap();
    let client = Client::join(&coordinator, dir.path(), "books").await;
    coordinator.until_seen("books").await;
    let file = private(&base, 3, "epsilon = 20.0, warm_up_clip = 0.5").replace("ffa-lora", "fed-sb");
    let run = coordinator.create_run(base.clone(), file).await;
    let ended = coordinator.until(&run, "the run ends", |run| !run.outcome.is_empty()).await;
    assert_eq!(ended.outcome, "completed");
    assert_entered(&data, &coordinator, &run, &client, &mut Found::default()).await;
    let account = &ledger(&client).runs[&run];
    let steps: Vec<u64> = account.released.events().iter().map(|event| event.steps()).collect();
    assert_eq!((steps.iter().sum::<u64>(), account.plan.whole().unwrap().steps()), (3 * 2 + 1, 3 * 2 + 1));
    let spent = account.released.epsilon_enforced(DELTA).unwrap();
    assert!(spent <= 20.0 && spent > 19.9, "{spent}");
    for record in coordinator.rounds(&run).await {
        let part = &record.participants[0];
        let report = part.privacy.as_ref().unwrap();
        assert_eq!(account.updates.get(&part.update_digest), Some(&record.round));
        assert_eq!((report.steps, report.total_steps), (if record.round == 0 { 1 } else { 2 }, 1 + 2 * record.round));
        assert_eq!((part.examples, part.train_loss, part.train_seconds), (0, 0.0, 0.0));
    }
}

/// The three places where a crash of a release could cost a charge or, worse, none.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_between_the_steps_of_a_release_pays_for_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let coordinator = Coordinator::new(&data, Config::default(), Arc::<Shifted>::default());
    let base = rondo_base::describe(&model_dir(), "tiny").unwrap();
    let home = Client::enrol(&coordinator, dir.path(), "books").await;
    let run = coordinator.create_run(base.clone(), private(&base, 2, "epsilon = 20.0")).await;
    let mut found = Found::default();
    let mut first = BTreeMap::new();
    for (place, entered) in [("spooled", 0), ("entered", 1), ("paid", 1)] {
        let mut client = Client::start_dying_at("books", home.clone(), place);
        let end = std::time::Instant::now() + Duration::from_secs(120);
        while client.is_running() {
            assert!(std::time::Instant::now() < end, "it never came to {place}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_entered(&data, &coordinator, &run, &client, &mut found).await;
        assert!(found.staged.is_empty() && found.accepted.is_empty(), "something left before it was paid for: {place}");
        let updates = ledger(&client).runs[&run].updates.clone();
        assert_eq!(updates.len(), entered, "{place}");
        assert!(updates == first || first.is_empty(), "what was made once is made once: {updates:?} {first:?}");
        first = updates;
    }
    let client = Client::start("books", home);
    let ended = coordinator.until(&run, "the run ends", |run| !run.outcome.is_empty()).await;
    assert_eq!(ended.outcome, "completed");
    assert_entered(&data, &coordinator, &run, &client, &mut found).await;
    let updates = &ledger(&client).runs[&run].updates;
    assert_eq!((updates.len(), found.accepted.len()), (2, 2));
    assert!(
        first.keys().all(|digest| found.accepted.contains(digest)),
        "the update that was paid for is the one that came"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_at_its_epsilon_and_a_domain_at_its_budget() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new(&dir.path().join("data"), Config::default(), Arc::<Shifted>::default());
    let base = rondo_base::describe(&model_dir(), "tiny").unwrap();
    let client = Client::enrol(&coordinator, dir.path(), "books").await;
    let config = client.join("client.toml");
    let budget = "[[privacy]]\ndomain = \"reviews\"\nepsilon = 6.2\ndelta = 1e-3\n";
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + budget).unwrap();
    let client = Client::start("books", client);
    coordinator.until_seen("books").await;
    // So little noise that few of the nine rounds fit.
    let file = private(&base, 9, "epsilon = 6.0, noise_multiplier = 0.7");
    let run = coordinator.create_run(base.clone(), file).await;
    let ended = coordinator.until(&run, "the run ends", |run| !run.outcome.is_empty()).await;
    assert_eq!(ended.outcome, "privacy budget spent");
    let last = ended.latest.unwrap();
    assert!(last.round < 9 && !last.global_digest.is_empty(), "{last:?}");
    let report = last.participants[0].privacy.clone().unwrap();
    assert!(report.epsilon <= 6.0 && report.next_epsilon > 6.0, "{report:?}");
    assert!(ended.privacy.contains("spent at most"), "{}", ended.privacy);

    // Over the same data a second run of this size does
    // not fit, and the client says so before any work.
    let second = private(&base, 9, "epsilon = 6.0, noise_multiplier = 0.7").replace("\"sentiment\"", "\"second\"");
    let second = coordinator.create_run(base.clone(), second).await;
    let declined = coordinator.until(&second, "the client answers", |run| !run.willing.is_empty()).await;
    assert!(!declined.willing[0].accepted);
    assert!(declined.willing[0].reason.contains("privacy budget has no room"), "{:?}", declined.willing);
    let state = ledger(&client);
    assert!(!state.runs.contains_key(&second), "nothing is set aside for it");
    assert_eq!(state.runs[&run].updates.len() as u32, last.round);
}
