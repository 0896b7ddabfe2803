use std::sync::atomic::Ordering;

use rondo_methods::{Kind, MethodError, Registry};
use rondo_proto::{ClientId, Digest, RunId};
use rondo_rounds::{CohortKey, Engine, StoredUpdate};

use super::*;
use crate::clock::SystemClock;
use crate::driver::Started;
use crate::store::mem::MemStore;
use crate::test_tensors::{base, run_file, update};

pub(super) struct Bench {
    pub(super) driver: Driver,
    pub(super) executor: Executor,
    pub(super) blobs: Arc<Blobs>,
    pub(super) run: RunId,
    pub(super) dir: tempfile::TempDir,
}

/// A run of one round and one client, whose update came while the disk had no space for the
/// aggregate.
async fn full_at_the_aggregation() -> Bench {
    let text = run_file("fedit", 1).replace("cohort = 3", "cohort = 1").replace("quorum = 2", "quorum = 1");
    full_with(text, &["movies"]).await
}

/// The same for a run of any cohort.
async fn full_with(text: String, names: &[&str]) -> Bench {
    bench_with(text, names, true, |_, _| ()).await.0
}

/// A run whose updates have come; `before` is called before the executor has anything to do.
pub(super) async fn bench_with<T>(
    text: String,
    names: &[&str],
    is_full: bool,
    before: impl FnOnce(&Executor, &Path) -> T,
) -> (Bench, T) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(MemStore::new());
    let started = Driver::start(store, Registry::builtin(), Arc::new(SystemClock)).unwrap();
    let Started { driver, requests, .. } = started;
    let blobs = Arc::new(Blobs::open(&dir.path().join("blobs")).unwrap());
    let staging = Arc::new(Staging::open(&dir.path().join("staging"), 1 << 20).unwrap());
    let ledger = Ledger::open(&dir.path().join("ledger")).unwrap();
    let executor = Executor::new(driver.clone(), Arc::clone(&blobs), staging, ledger, Arc::new(SystemClock));
    let held = before(&executor, dir.path());
    tokio::spawn(executor.clone().run(requests));

    let run = RunId::new("sentiment-1").unwrap();
    let key = CohortKey::new([1; 32]);
    let create = Input::CreateRun { run: run.clone(), run_file: text.clone(), base: base(), start_adapter: None, key };
    driver.step(create).await.unwrap();
    let clients: Vec<ClientId> = names.iter().map(|name| ClientId::new(*name).unwrap()).collect();
    let poll = |client: &ClientId| Input::Poll {
        client: client.clone(),
        datasets: vec!["reviews".into()],
        bases: vec![base().digest],
        tokens: Vec::new(),
        max_rank: 0,
        version: String::new(),
    };
    for client in &clients {
        let steps = [
            Input::Enrolled { client: client.clone(), fingerprint: "f".into(), expires: i64::MAX, approved: true },
            poll(client),
            Input::Answer { client: client.clone(), run: run.clone(), accept: true, reason: String::new(), rank: 0 },
        ];
        for step in steps {
            driver.step(step).await.unwrap();
        }
    }
    let shown = u32::from(!text.contains("[privacy]"));
    for (seed, client) in (1..).zip(&clients) {
        driver.step(poll(client)).await.unwrap();
        let bytes = update(&text, &base(), Kind::Train, 1, 4, seed);
        let file = dir.path().join("update");
        std::fs::write(&file, &bytes).unwrap();
        let digest = Digest::of(&bytes);
        blobs.put_file(&run, &digest, &file).await.unwrap();
        blobs.full.store(is_full && seed as usize == clients.len(), Ordering::SeqCst);
        let update = StoredUpdate {
            digest,
            examples: 10 * u64::from(shown),
            rank: 4,
            base_version: 0,
            train_loss: 0.5 * f64::from(shown),
            train_seconds: f64::from(shown),
            norm: 1.0,
            bytes_up: bytes.len() as u64,
            before: None,
            min_group: 0,
            metrics_withheld: false,
            privacy: None,
        };
        let work = WorkKey { run: run.clone(), round: 1, attempt: 1 };
        driver.step(Input::UpdateStored { client: client.clone(), work, update }).await.unwrap();
    }
    (Bench { driver, executor, blobs, run, dir }, held)
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
    // Longer than the tries of old together would be no better a test, only a slower one: three of
    // them fail here.
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

/// One round of two clients, with privacy per client.
pub(super) fn private() -> String {
    let privacy = "[privacy]\nunit = \"client\"\nepsilon = 8.0\ndelta = 1e-5\nclip = 1.0\n";
    run_file("fedit", 1).replace("cohort = 3", "cohort = 2") + privacy
}

#[tokio::test]
async fn a_release_that_waits_for_space_is_drawn_and_charged_once() {
    let bench = full_with(private(), &["movies", "news"]).await;
    tokio::time::sleep(Duration::from_millis(1600)).await;
    assert_eq!(bench.phase().await, ("aggregating".to_owned(), 1));
    bench.blobs.full.store(false, Ordering::SeqCst);
    for _ in 0..200 {
        if bench.phase().await.0 == "ended" {
            let run = bench.run.clone();
            let released = move |engine: &Engine| engine.round_record(&run, 1).unwrap().released.unwrap();
            assert_eq!(bench.driver.view(released).await.unwrap().total_steps, 1);
            let books = Ledger::read(&bench.dir.path().join("ledger")).unwrap().state;
            assert_eq!(books.central[bench.run.as_str()].releases, [(1, 1)]);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it was not tried again");
}

#[test]
fn a_full_disk_is_told_from_what_does_not_pass() {
    let full =
        |kind: std::io::ErrorKind| AggregationError::File { action: "write", path: "x".into(), source: kind.into() };
    assert!(full(std::io::ErrorKind::StorageFull).is_transient());
    assert!(!full(std::io::ErrorKind::PermissionDenied).is_transient());
    let method =
        |kind: std::io::ErrorKind| AggregationError::Method(MethodError::Io { path: "x".into(), source: kind.into() });
    assert!(method(std::io::ErrorKind::StorageFull).is_transient());
    assert!(!method(std::io::ErrorKind::NotFound).is_transient());
    assert!(AggregationError::Driver(DriverError::Store("full".into())).is_transient());
    assert!(!AggregationError::Ended.is_transient());
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
