use std::sync::atomic::Ordering;

use rondo_methods::{Kind, Registry};
use rondo_proto::{ClientId, RunId};
use rondo_rounds::{CohortKey, Engine, StoredUpdate};

use super::*;
use crate::clock::SystemClock;
use crate::driver::Started;
use crate::store::mem::MemStore;
use tensors::{base, run_file, update};

// The integration tests' updates.
#[allow(dead_code)]
#[path = "../tests/it/tensors.rs"]
mod tensors;

struct Bench {
    driver: Driver,
    blobs: Arc<Blobs>,
    run: RunId,
    _dir: tempfile::TempDir,
}

/// A run of one round and one client, whose update came while the disk had no space for the aggregate.
async fn full_at_the_aggregation() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(MemStore::new());
    let started = Driver::start(store, Registry::builtin(), Arc::new(SystemClock)).unwrap();
    let Started { driver, orders, .. } = started;
    let blobs = Arc::new(Blobs::open(&dir.path().join("blobs")).unwrap());
    let staging = Arc::new(Staging::open(&dir.path().join("staging"), 1 << 20).unwrap());
    let ledger = Ledger::open(&dir.path().join("ledger")).unwrap();
    tokio::spawn(Executor::new(driver.clone(), Arc::clone(&blobs), staging, ledger).run(orders));

    let text = run_file("fedit", 1).replace("cohort = 3", "cohort = 1").replace("quorum = 2", "quorum = 1");
    let run = RunId::new("sentiment-1").unwrap();
    let client = ClientId::new("movies").unwrap();
    let poll = Input::Poll {
        client: client.clone(),
        datasets: vec!["reviews".into()],
        bases: vec![base().digest],
        max_rank: 0,
        version: String::new(),
    };
    let steps = [
        Input::CreateRun {
            run: run.clone(),
            run_file: text.clone(),
            base: base(),
            initial: None,
            key: CohortKey::new([1; 32]),
        },
        Input::Enrolled { client: client.clone(), fingerprint: "f".into(), expires: i64::MAX, approved: true },
        poll.clone(),
        Input::Answer { client: client.clone(), run: run.clone(), accept: true, reason: String::new(), rank: 0 },
        poll,
    ];
    for step in steps {
        driver.step(step).await.unwrap();
    }
    let bytes = update(&text, Kind::Train, 1, 4, 1);
    let file = dir.path().join("update");
    std::fs::write(&file, &bytes).unwrap();
    let digest = Digest::of(&bytes);
    blobs.put_file(&run, &digest, &file).await.unwrap();
    blobs.full.store(true, Ordering::SeqCst);
    let update = StoredUpdate {
        digest,
        examples: 10,
        rank: 4,
        base_version: 0,
        train_loss: 0.5,
        train_seconds: 1.0,
        norm: 1.0,
        bytes_up: bytes.len() as u64,
        before: None,
        privacy: None,
    };
    let work = WorkKey { run: run.clone(), round: 1, attempt: 1 };
    driver.step(Input::UpdateStored { client, work, update }).await.unwrap();
    Bench { driver, blobs, run, _dir: dir }
}

impl Bench {
    async fn phase(&self) -> (String, u32) {
        let run = self.run.clone();
        let phase = move |engine: &Engine| {
            let summary = engine.run_summary(&run).unwrap();
            (summary.phase, summary.open.map_or(1, |open| open.attempt))
        };
        self.driver.view(phase).await.unwrap()
    }
}

#[tokio::test]
async fn a_full_disk_delays_an_aggregation_and_throws_nothing_away() {
    let bench = full_at_the_aggregation().await;
    // Longer than the tries of old together would be no better a test, only a slower one: three of them fail here.
    tokio::time::sleep(Duration::from_millis(1600)).await;
    assert_eq!(bench.phase().await, ("aggregating".to_owned(), 1));
    bench.blobs.full.store(false, Ordering::SeqCst);
    for _ in 0..200 {
        let (phase, attempt) = bench.phase().await;
        assert_eq!(attempt, 1);
        if phase != "aggregating" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it was not tried again");
}

#[test]
fn a_full_disk_is_told_from_what_does_not_pass() {
    let full = |kind: std::io::ErrorKind| Failure::File { action: "write", path: "x".into(), source: kind.into() };
    assert!(full(std::io::ErrorKind::StorageFull).may_pass());
    assert!(!full(std::io::ErrorKind::PermissionDenied).may_pass());
    let method = |kind: std::io::ErrorKind| Failure::Method(MethodError::Io { path: "x".into(), source: kind.into() });
    assert!(method(std::io::ErrorKind::StorageFull).may_pass());
    assert!(!method(std::io::ErrorKind::NotFound).may_pass());
    assert!(Failure::Driver(DriverError::Store("full".into())).may_pass());
    assert!(!Failure::Ended.may_pass());
}

#[tokio::test]
async fn a_cancelled_run_is_not_tried_again() {
    let bench = full_at_the_aggregation().await;
    bench.driver.step(Input::Cancel { run: bench.run.clone() }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(bench.phase().await.0, "ended");
    bench.blobs.full.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(bench.blobs.list().unwrap().is_empty(), "the update went with the run and no aggregate came");
}
