//! What happens in the middle of a training round: a client dies, the coordinator goes away.

use std::sync::Arc;

use rondo_coordinator::config::Config;
use rondo_proto::v1;
use tempfile::TempDir;

use crate::client::{Client, model_dir, run_file};
use crate::coordinator::{Coordinator, End, Shifted};

const NAMES: [&str; 4] = ["books", "films", "meals", "phones"];
/// Enough for a round to take a while on any machine.
const STEPS: u32 = 400;

struct Federation {
    // Ends before the clients do, and the folder last.
    coordinator: Coordinator,
    clients: Vec<Client>,
    run: String,
    _dir: TempDir,
}

/// A coordinator, four client processes and a run of two rounds that all of them take part in.
async fn federation(method: &str, grace_s: u32) -> Federation {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new(&dir.path().join("data"), Config::default(), Arc::<Shifted>::default());
    let base = rondo_base::describe(&model_dir(), "tiny").unwrap();
    let tables = format!(
        "train = {{ local_steps = {STEPS}, batch = 8, lr = 1e-3 }}\n\
         rounds = {{ count = 2, cohort = 4, quorum = 3, deadline_s = 120, grace_s = {grace_s} }}"
    );
    let run_file = run_file(&base, method, &tables);
    let mut clients = Vec::new();
    for name in NAMES {
        clients.push(Client::join(&coordinator, dir.path(), name).await);
    }
    // All of them poll before there is a run, so that it does not start
    // with three while the fourth is still starting.
    for name in NAMES {
        coordinator.until_seen(name).await;
    }
    let run = coordinator.create_run(base, run_file).await;
    Federation { coordinator, clients, run, _dir: dir }
}

fn open(run: &v1::RunSummary) -> v1::RoundRecord {
    run.open.clone().unwrap_or_default()
}

/// Whether the client has made some of its steps and not yet all.
fn is_training(run: &v1::RunSummary, round: u32, client: &str) -> bool {
    let open = open(run);
    open.round == round
        && open.kind == "training"
        && open.participants.iter().any(|part| {
            part.client == client
                && part.state == "training"
                && part.steps == STEPS
                && (1..STEPS * 3 / 4).contains(&part.step)
        })
}

fn of<'r>(record: &'r v1::RoundRecord, client: &str) -> &'r v1::Participant {
    record.participants.iter().find(|part| part.client == client).unwrap()
}

fn accepted(record: &v1::RoundRecord) -> Vec<&str> {
    let accepted = record.participants.iter().filter(|part| part.state == "accepted");
    accepted.map(|part| part.client.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_killed_in_training_is_dropped_with_the_reason_and_the_run_completes() {
    let Federation { coordinator, mut clients, run, _dir } = federation("ffa-lora", 5).await;
    let victim = clients[2].name.clone();
    coordinator.until(&run, "the victim trains", |run| is_training(run, 1, &victim)).await;
    clients[2].kill();

    coordinator.until(&run, "the run ends", |run| run.outcome == "completed").await;
    let rounds = coordinator.rounds(&run).await;
    assert_eq!(rounds.iter().map(|record| (record.round, record.attempt)).collect::<Vec<_>>(), [(1, 1), (2, 1)]);
    let part = of(&rounds[0], &victim);
    assert_eq!((part.state.as_str(), part.update_digest.as_str(), part.weight), ("dropped", "", 0.0), "{part:#?}");
    assert_eq!(part.reason, "no update within 5 s after quorum was reached");
    for record in &rounds {
        assert_eq!(accepted(record), ["books", "films", "phones"], "{record:#?}");
        assert!(!record.global_digest.is_empty());
        let weights: f64 = record.participants.iter().map(|part| part.weight).sum();
        assert!((weights - 1.0).abs() < 1e-9, "{record:#?}");
        for name in accepted(record) {
            assert!(of(record, name).after.is_some(), "{name} measured what was published");
        }
    }
    assert_eq!(clients.iter_mut().map(Client::is_running).collect::<Vec<_>>(), [true, true, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_stops_in_training_goes_on_with_the_same_round() {
    let Federation { mut coordinator, mut clients, run, _dir } = federation("fedit", 60).await;
    let mut left = Vec::new();
    for (round, end) in [(1, End::Abrupt), (2, End::Graceful)] {
        let before =
            coordinator.until(&run, "training", |run| NAMES.iter().any(|client| is_training(run, round, client))).await;
        coordinator.stop(end);
        coordinator.start();
        let after = coordinator.run(&run).await;
        let place = |run: &v1::RunSummary| {
            let open = open(run);
            (run.phase.clone(), open.round, open.attempt, open.started_at_ms, run.deadline_ms)
        };
        assert_eq!(place(&after), place(&before), "{end:?}: the same round, attempt and deadline");
        assert_eq!((after.phase.as_str(), open(&after).attempt), ("training", 1));
        left.push(open(&before).started_at_ms);
    }
    coordinator.until(&run, "the run ends", |run| run.outcome == "completed").await;
    let rounds = coordinator.rounds(&run).await;
    assert_eq!(rounds.iter().map(|record| (record.round, record.attempt)).collect::<Vec<_>>(), [(1, 1), (2, 1)]);
    assert_eq!(rounds.iter().map(|record| record.started_at_ms).collect::<Vec<_>>(), left);
    for record in &rounds {
        assert_eq!(accepted(record), NAMES, "{record:#?}");
    }
    for client in &mut clients {
        assert!(client.is_running());
        let trained = client.log().matches("trained").count();
        assert_eq!(trained, 2, "{} trained each round once, however often it was asked", client.name);
    }
}
