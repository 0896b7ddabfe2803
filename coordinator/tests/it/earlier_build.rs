//! A data directory that an earlier build wrote opens, and its runs go on.
//!
//! `tests/data/earlier-build` holds such a directory and the clients' identities, as they were when
//! the coordinator was killed: one run with privacy per client has ended, a second one is in its
//! second phase with one update accepted. The database is left out, as the journal is the truth.

use std::path::{Path, PathBuf};

use rondo_coordinator::clock::SystemClock;
use rondo_coordinator::config::Config;
use rondo_coordinator::data_dir::DataDir;
use rondo_coordinator::init::{InitRequest, init};
use rondo_dp::Ledger;
use rondo_wire::identity;

use crate::coordinator::Coordinator;
use crate::fake_client::{Did, FakeClient, work_until_ended};
use crate::tensors::run_file;

const CLIENTS: [&str; 3] = ["movies", "news", "tweets"];
/// Certificates of the fixture hold for ten years.
const DAYS: u32 = 3650;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/earlier-build")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_an_earlier_build_opens_and_its_runs_go_on() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(), dir.path());
    let data = dir.path().join("data");
    let coordinator = Coordinator::start(&data);
    let operator = coordinator.operator();
    let ids: Vec<String> =
        std::fs::read_to_string(dir.path().join("runs")).unwrap().lines().map(str::to_owned).collect();
    let [private, open] = <[String; 2]>::try_from(ids).unwrap();

    let ended = operator.run(&private).await;
    assert_eq!((ended.phase.as_str(), ended.outcome.as_str()), ("ended", "completed"));
    let record = operator.round(&private, 1).await;
    let head = Ledger::read(&DataDir::new(&data).ledger()).unwrap().head;
    assert_eq!(record.released.unwrap().ledger_head, head.to_string());

    let mut clients: Vec<_> = CLIENTS
        .iter()
        .map(|name| FakeClient::load(&dir.path().join("clients").join(name), coordinator.address))
        .collect();
    let ended = work_until_ended(&mut clients, &operator, &open).await;
    assert_eq!(ended.outcome, "completed");
    let record = operator.round(&open, 2).await;
    assert!(record.participants.iter().filter(|part| part.state == "accepted").count() >= 2, "{record:#?}");
    coordinator.stop();
    // What this build wrote it reads again.
    let coordinator = Coordinator::start(&data);
    assert_eq!(coordinator.operator().run(&open).await.outcome, "completed");
}

/// Writes the fixture; to be run by hand, with the build whose directory is to be kept.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "replaces the fixture"]
async fn write_the_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let config = Config { client_certificate_days: DAYS, ..Config::default() };
    let request = InitRequest { hosts: vec!["127.0.0.1".into()], config: config.clone(), ..Default::default() };
    init(&DataDir::new(&data), &request, &SystemClock).unwrap();
    let coordinator = Coordinator::start_with(&data, config);
    let operator = coordinator.operator();
    let mut clients = Vec::new();
    for name in CLIENTS {
        clients.push(FakeClient::join(&coordinator, &dir.path().join("clients"), name).await);
    }
    let privacy = "[privacy]\nunit = \"client\"\nepsilon = 8.0\ndelta = 1e-5\nclip = 100.0\nnoise_multiplier = 2.0\n";
    let private = operator.create_run(run_file("fedit", 1) + privacy).await.run;
    work_until_ended(&mut clients, &operator, &private).await;
    let open = operator.create_run(run_file("fed-sb", 2)).await.run;
    while clients[0].step().await.unwrap() != Did::Trained {
        for client in &mut clients[1..] {
            // They warm up, and wait with their training.
            if operator.run(&open).await.phase != "training" {
                client.step().await.unwrap();
            }
        }
    }
    std::fs::write(dir.path().join("runs"), format!("{private}\n{open}\n")).unwrap();
    coordinator.kill();
    for left_out in ["data/store/sled", "data/staging"] {
        std::fs::remove_dir_all(dir.path().join(left_out)).unwrap();
    }
    for left_out in ["data/address", "data/lock"] {
        let _ = std::fs::remove_file(dir.path().join(left_out));
    }
    assert!(identity::load(&DataDir::new(&data).operator()).is_ok());
    let _ = std::fs::remove_dir_all(fixture());
    copy(dir.path(), &fixture());
}
