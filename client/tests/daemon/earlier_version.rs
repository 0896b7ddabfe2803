//! A client's folder that version 0.1.0 wrote in the middle of a round opens and goes on (see
//! `coordinator/tests/fixtures/README.md`).

use std::fs;
use std::path::{Path, PathBuf};

use rondo_client::answers::Answers;
use rondo_client::cache::Cache;
use rondo_client::config::Config;
use rondo_client::disk::LocalDisk;
use rondo_client::spool::{Charge, Key, Spool};
use rondo_dp::Ledger;
use rondo_proto::v1::{self, WorkKind, poll_reply::Next};
use rondo_proto::{Digest, RunId};
use rondo_wire::identity;

use crate::machine::{Machine, model_dir};

/// Without privacy: fed-sb, rounds 0 and 1 are over.
const PLAIN: &str = "plain-5be315";
/// With privacy for every example: ffa-lora. The update of round 3 is in
/// the spool and in the ledger, and was not sent.
const PRIVATE: &str = "private-c38aa9";
/// What the folder's cache holds: the frozen tensors and the state after round 1 of the plain run,
/// and the state after round 2 of the private run.
const FROZEN: &str = "blake3:40462bcbd74e0b0c664072eb3933e3a52b0cebc3b3e961509cfb11c1b75a64c4";
const PLAIN_STATE: &str = "blake3:927a15ef0c9fff8cceb21e074397b23ee2da57410efd3de77da9209634948b02";
const PRIVATE_STATE: &str = "blake3:e5f242f79a539e2a6c71b17946e75ce2db28c72c5f83bd4ad65dce41f5611681";
/// The update in the spool.
const UPDATE: &str = "blake3:2f378f80a893de5deb1624271a0ab3d64a8edbf9ce77dda62e8b6cafe04b7785";
/// The ledger after its four entries.
const HEAD: &str = "blake3:5688282eeee23c1cc24f22488dd4338f0682af3a24967357a1cec94a8517e8ba";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v0.1.0/news")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let to = to.join(entry.file_name().unwrap());
        if entry.is_dir() { copy(&entry, &to) } else { fs::copy(&entry, &to).map(|_| ()).unwrap() }
    }
}

/// The run file of this name, as the coordinator has it.
fn run_file(name: &str) -> String {
    fs::read_to_string(fixture().join(name)).unwrap()
}

fn state(round: u32, digest: &str, frozen: &str) -> Option<v1::AdapterState> {
    let published = vec![v1::Published { round, digest: digest.to_owned(), bytes: 0 }];
    Some(v1::AdapterState { round, published, frozen_digest: frozen.to_owned(), ..Default::default() })
}

#[test]
fn its_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(), dir.path());
    let identity = identity::load(dir.path()).unwrap();
    assert_eq!((identity.name.as_str(), identity.role.as_str()), ("news", "client"));
    assert!(!identity::renewal_due(&identity.cert_pem, 1_796_080_680), "it held when the folder was written");

    let config = Config::read(&dir.path().join("client.toml")).unwrap();
    let names: Vec<&str> = config.datasets.iter().map(|source| source.name.as_str()).collect();
    assert_eq!((names, config.models.len(), config.privacy.len()), (vec!["reviews", "notes"], 1, 1));

    let answers = Answers::open(dir.path().join("answers.json"));
    for (run, file) in [(PLAIN, "plain.toml"), (PRIVATE, "private.toml")] {
        let answer = answers.get(&RunId::new(run).unwrap()).unwrap();
        assert_eq!((&answer.declined, answer.rank), (&None, 2));
        assert_eq!(answer.run_file.to_string(), Digest::of(run_file(file).as_bytes()).to_string());
    }

    let cache = Cache::open(dir.path().join("cache")).unwrap();
    for digest in [FROZEN, PLAIN_STATE, PRIVATE_STATE] {
        assert!(cache.find(&digest.parse().unwrap()).is_some(), "{digest}");
    }

    let spool = Spool::open(dir.path().join("spool"), Box::new(LocalDisk)).unwrap();
    let [entry] = &spool.list().unwrap()[..] else { panic!("one entry") };
    assert_eq!(entry.key, Key { run: RunId::new(PRIVATE).unwrap(), round: 3, attempt: 1 });
    assert_eq!((entry.digest.to_string().as_str(), entry.bytes, entry.accepted), (UPDATE, 1880, false));
    assert_eq!((entry.facts.rank, entry.facts.base_version, &entry.facts.charge), (2, 1, &Charge::Due));

    let ledger = Ledger::read(&dir.path().join("ledger.jsonl")).unwrap();
    assert_eq!(ledger.entries.len(), 4);
    assert_eq!(ledger.entries[3].1.to_string(), HEAD);
    assert_eq!(ledger.state.runs[PRIVATE].updates.len(), 3);
    assert!(ledger.state.domains["notes"].budget.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn its_daemon_goes_on() {
    let mut machine = Machine::new();
    copy(&fixture(), machine.dir.path());
    copy(&model_dir(), &machine.dir.path().join("model"));
    machine.config = run_file("client.toml");
    machine.client = "news";

    let private = run_file("private.toml");
    let mut third = machine.assignment(WorkKind::Train, PRIVATE, 3, &private);
    third.state = state(2, PRIVATE_STATE, "");
    machine.coordinator.give(Next::Assignment(third));
    // The pretender measures what it is given; nothing but the cache has the blobs.
    let mut evaluate = machine.assignment(WorkKind::Evaluate, PLAIN, 1, &run_file("plain.toml"));
    evaluate.state = state(1, PLAIN_STATE, FROZEN);
    machine.coordinator.give(Next::Assignment(evaluate));
    machine.start();
    machine.coordinator.until("the update and the measurement", |book| book.work.is_empty()).await;
    let head = |book: &crate::coordinator::Book, round| book.uploads[&(PRIVATE.to_owned(), round, 1)].1.clone();
    {
        let book = machine.coordinator.book();
        assert!(book.failures.is_empty(), "{:?}", book.failures);
        assert_eq!(machine.trained(), 0, "the update of the earlier version is sent");
        let sent = head(&book, 3);
        assert_eq!(sent.key.unwrap().digest, UPDATE);
        let report = sent.privacy.unwrap();
        assert_eq!((report.total_steps, report.ledger_head.as_str()), (1200, HEAD), "it is charged once");
        assert_eq!(book.evaluations.len(), 1);
        assert!(book.download_offsets.is_empty());
    }

    // The next round is trained, charged and sent.
    let mut fourth = machine.assignment(WorkKind::Train, PRIVATE, 4, &private);
    fourth.state = state(2, PRIVATE_STATE, "");
    machine.coordinator.give(Next::Assignment(fourth));
    machine.coordinator.until("the next update", |book| book.accepted.len() == 2).await;
    machine.stop().await;
    let report = head(&machine.coordinator.book(), 4).privacy.unwrap();
    assert_eq!((machine.trained(), report.total_steps), (1, 1600));
    assert!(report.epsilon <= 8.0, "{report:?}");
    let ledger = Ledger::read(&machine.dir.path().join("ledger.jsonl")).unwrap();
    assert_eq!((ledger.entries.len(), ledger.state.runs[PRIVATE].updates.len()), (5, 4));
}
