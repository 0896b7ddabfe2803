//! A data folder that version 0.1.0 wrote in the middle of two rounds opens and goes on (see
//! `tests/fixtures/README.md`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rondo_coordinator::clock::{Clock, Millis, SystemClock};
use rondo_coordinator::config::Config;
use rondo_coordinator::data_dir::DataDir;
use rondo_coordinator::tls::ca::Authority;
use rondo_coordinator::tls::server::ServerCertificate;
use rondo_proto::v1;
use rondo_proto::v1::poll_reply::Next;

use crate::coordinator::{Coordinator, Operator};
use crate::fake_client::{FakeClient, header, work_until_ended};

/// Without privacy: fed-sb, paused in round 2; the update of movies is accepted.
const PLAIN: &str = "plain-5be315";
/// With privacy for every example: ffa-lora, in round 3; the update of movies is accepted.
const PRIVATE: &str = "private-c38aa9";
/// When the folder was written, in Unix milliseconds.
const WRITTEN: Millis = 1_796_080_680_000;

/// Time goes on from when the folder was written, so that no deadline has passed.
struct FromThen(Instant);

impl Clock for FromThen {
    fn now(&self) -> Millis {
        WRITTEN + self.0.elapsed().as_millis() as Millis
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v0.1.0")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let to = to.join(entry.file_name().unwrap());
        if entry.is_dir() { copy(&entry, &to) } else { fs::copy(&entry, &to).map(|_| ()).unwrap() }
    }
}

/// The coordinator on a copy of the folder.
fn start(dir: &Path) -> Coordinator {
    let data = DataDir::new(dir.join("data"));
    copy(&fixture().join("coordinator"), data.root());
    // The certificates of the CA, the operator and the clients hold for ten years. That of the
    // server holds for one and is renewed where it has ended.
    let hosts = data.init_record().unwrap().hosts;
    let authority = Authority::load(&data.ca()).unwrap();
    ServerCertificate::load(&data.server(), &authority, &hosts, SystemClock.now()).unwrap();
    Coordinator::start_at(data.root(), Config::default(), Arc::new(FromThen(Instant::now())))
}

/// The client of this name, with the base and the data sets that it had.
async fn client(coordinator: &Coordinator, operator: &Operator, name: &str) -> FakeClient {
    let known = operator.api.clone().get_client(v1::GetClientRequest { client: name.into() }).await.unwrap();
    let known = known.into_inner();
    assert_eq!(known.datasets, ["notes", "reviews"], "what it said to the earlier version");
    let mut client = FakeClient::load(&fixture().join("clients").join(name), coordinator.address);
    assert_eq!((client.identity.name.as_str(), client.identity.role.as_str()), (name, "client"));
    client.datasets = known.datasets;
    client.bases = known.bases;
    client
}

fn participant<'r>(round: &'r v1::RoundRecord, client: &str) -> &'r v1::Participant {
    round.participants.iter().find(|part| part.client == client).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn its_runs_rounds_and_records_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = start(dir.path());
    let operator = coordinator.operator();
    let runs = operator.api.clone().list_runs(v1::ListRunsRequest::default()).await.unwrap().into_inner().runs;
    assert_eq!(runs.iter().map(|run| run.run.as_str()).collect::<Vec<_>>(), [PLAIN, PRIVATE]);

    let plain = operator.run(PLAIN).await;
    assert_eq!((plain.phase.as_str(), plain.paused, plain.round, plain.rounds), ("training", true, 2, 4));
    assert_eq!((plain.method.as_str(), plain.privacy.as_str()), ("fed-sb", "no privacy"));
    let warm_up = operator.round(PLAIN, 0).await;
    assert_eq!((warm_up.kind.as_str(), warm_up.participants.len()), ("warm-up", 2));
    assert_eq!(warm_up.frozen_digest, "blake3:40462bcbd74e0b0c664072eb3933e3a52b0cebc3b3e961509cfb11c1b75a64c4");
    let first = operator.round(PLAIN, 1).await;
    assert_eq!(first.global_digest, "blake3:927a15ef0c9fff8cceb21e074397b23ee2da57410efd3de77da9209634948b02");
    assert_eq!(first.aggregation_error, Some(3.191843731328538e-8));
    assert_eq!(first.held_out_loss, Some(0.8085483377084681));
    let open = plain.open.unwrap();
    let movies = participant(&open, "movies");
    assert_eq!((movies.state.as_str(), movies.examples, movies.update_norm), ("accepted", 44, 0.8420986981947827));
    assert_eq!(movies.update_digest, "blake3:c3b13b3b8f32c8a32f85f31dbf3e06b8df1b55460866e7fe9b13b23e242e858d");
    assert_eq!(participant(&open, "news").state, "selected");

    let private = operator.run(PRIVATE).await;
    assert_eq!((private.phase.as_str(), private.paused, private.round), ("training", false, 3));
    assert_eq!(
        private.privacy,
        "(8, 1e-3)-differential privacy per example, clip 1; spent at most 6.6248 (5.9282 by PLD), 1200 steps"
    );
    let second = operator.round(PRIVATE, 2).await;
    assert_eq!(second.global_digest, "blake3:e5f242f79a539e2a6c71b17946e75ce2db28c72c5f83bd4ad65dce41f5611681");
    let spent = participant(&second, "news").privacy.clone().unwrap();
    assert_eq!((spent.total_steps, spent.epsilon), (800, 5.249536761266123));
    assert_eq!(spent.ledger_head, "blake3:5f16aacf4ba7fd3f136135f1baaf5f65eae6c287952e6fb4388ec1759c6a1333");
    let spent = participant(&private.open.unwrap(), "movies").privacy.clone().unwrap();
    assert_eq!((spent.total_steps, spent.epsilon), (1200, 6.624769649681067));
    coordinator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn its_open_rounds_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = start(dir.path());
    let operator = coordinator.operator();
    let mut movies = client(&coordinator, &operator, "movies").await;
    let mut news = client(&coordinator, &operator, "news").await;

    // Round 3 lacks the update of news alone. Its report follows from that of round 2.
    let Next::Assignment(assignment) = news.poll().await.unwrap() else { panic!("no work") };
    assert_eq!((assignment.run.as_str(), assignment.round, assignment.attempt), (PRIVATE, 3, 1));
    news.fetch(&assignment).await.unwrap();
    let bytes = news.update(&assignment);
    let mut head = header(&assignment, &bytes);
    let before = participant(&operator.round(PRIVATE, 2).await, "news").privacy.clone().unwrap();
    head.privacy = Some(v1::PrivacyReport {
        total_steps: before.total_steps + before.steps,
        epsilon: before.next_epsilon,
        epsilon_pld: before.next_epsilon,
        next_epsilon: 8.0,
        ..before
    });
    assert!(news.send(head, &bytes).await.unwrap().accepted);
    let until = Instant::now() + std::time::Duration::from_secs(30);
    while operator.run(PRIVATE).await.round != 4 {
        assert!(Instant::now() < until, "round 3 does not close");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let third = operator.round(PRIVATE, 3).await;
    assert!(third.participants.iter().all(|part| part.state == "accepted"), "{third:#?}");
    let fourth = movies.assignment().await;
    assert_eq!((fourth.run.as_str(), fourth.round), (PRIVATE, 4));
    assert_eq!(fourth.state.as_ref().unwrap().published[0].digest, third.global_digest);
    movies.fetch(&fourth).await.unwrap();
    operator.api.clone().cancel_run(v1::GetRunRequest { run: PRIVATE.into() }).await.unwrap();

    // The paused run is resumed and comes to its end.
    operator.api.clone().resume_run(v1::GetRunRequest { run: PLAIN.into() }).await.unwrap();
    let ended = work_until_ended(&mut [movies, news], &operator, PLAIN).await;
    assert_eq!((ended.outcome.as_str(), ended.round), ("completed", 4));
    let second = operator.round(PLAIN, 2).await;
    assert_eq!(
        participant(&second, "movies").update_digest,
        "blake3:c3b13b3b8f32c8a32f85f31dbf3e06b8df1b55460866e7fe9b13b23e242e858d",
        "the update that the earlier version accepted"
    );
    assert_eq!(operator.round(PRIVATE, 2).await.kind, "training", "the other run's records stay");
    coordinator.stop();
}
