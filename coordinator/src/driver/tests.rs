use std::sync::atomic::{AtomicI64, Ordering};

use rondo_proto::ClientId;
use rondo_rounds::{Effect, Rejection};

use super::*;
use crate::store::mem::MemStore;

struct HeldClock(AtomicI64);

impl Clock for HeldClock {
    fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct Bench {
    store: Arc<MemStore>,
    clock: Arc<HeldClock>,
    driver: Driver,
    requests: mpsc::UnboundedReceiver<DriverRequest>,
}

fn start(store: Arc<MemStore>) -> Bench {
    let clock = Arc::new(HeldClock(AtomicI64::new(1_800_000_000_000)));
    let Started { driver, requests, .. } =
        Driver::start(Arc::clone(&store) as Arc<dyn Store>, Registry::builtin(), Arc::clone(&clock) as _).unwrap();
    Bench { store, clock, driver, requests }
}

fn enrolled(name: &str) -> Input {
    let client = ClientId::new(name).unwrap();
    Input::Enrolled { client, fingerprint: "f".into(), expires: 1_900_000_000_000, approved: true }
}

async fn clients(driver: &Driver) -> Vec<String> {
    driver.view(|engine| engine.clients().into_iter().map(|info| info.client).collect()).await.unwrap()
}

fn also() -> Batch {
    let mut batch = Batch::new();
    batch.put("token/1", "used");
    batch
}

#[tokio::test]
async fn a_commit_that_fails_leaves_nothing_and_the_next_one_works() {
    let bench = start(Arc::default());
    bench.driver.step(enrolled("movies")).await.unwrap();
    bench.store.fail_commits(true);
    let refused = bench.driver.step_with(enrolled("news"), also()).await.unwrap_err();
    assert!(matches!(refused, DriverError::Store(_)), "{refused}");
    assert_eq!(clients(&bench.driver).await, ["movies"], "what is not durable is not shown");
    assert_eq!(bench.store.get("token/1").unwrap(), None);

    bench.store.fail_commits(false);
    bench.driver.step_with(enrolled("news"), also()).await.unwrap();
    assert_eq!(clients(&bench.driver).await, ["movies", "news"]);
    assert_eq!(bench.store.get("token/1").unwrap(), Some(b"used".to_vec()));
}

#[tokio::test]
async fn a_rejected_input_takes_its_other_changes_with_it() {
    let bench = start(Arc::default());
    bench.driver.step(enrolled("movies")).await.unwrap();
    let refused = bench.driver.step_with(enrolled("movies"), also()).await.unwrap_err();
    assert!(matches!(refused, DriverError::Rejected(Rejection::ClientExists { .. })), "{refused}");
    assert_eq!(bench.store.get("token/1").unwrap(), None);
}

#[tokio::test]
async fn inputs_that_wait_together_are_all_answered_and_durable() {
    let bench = start(Arc::default());
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let driver = bench.driver.clone();
            tokio::spawn(async move { driver.step(enrolled(&format!("c{n}"))).await })
        })
        .collect();
    for step in waiting {
        step.await.unwrap().unwrap();
    }
    bench.driver.stop().await;
    let again = start(bench.store);
    assert_eq!(clients(&again.driver).await.len(), 100);
}

#[tokio::test]
async fn after_the_stop_every_call_is_refused() {
    let mut bench = start(Arc::default());
    bench.driver.stop().await;
    while bench.requests.recv().await.is_some() {}
    assert!(matches!(bench.driver.step(enrolled("movies")).await, Err(DriverError::Stopped)));
    assert!(matches!(bench.driver.view(|_| ()).await, Err(DriverError::Stopped)));
}

/// A run whose only client got its work: it ends when the client's deadline, 100 s from now,
/// passes.
async fn in_training(bench: &Bench) -> rondo_proto::RunId {
    let base = rondo_proto::v1::BaseModel {
        name: "tiny".into(),
        digest: rondo_proto::Digest::of(b"tiny").to_string(),
        hidden_size: 8,
        max_positions: 512,
        linears: vec![rondo_proto::v1::LinearLayer { name: "query".into(), out_features: 8, in_features: 8 }],
        ..Default::default()
    };
    let run_file = "name = \"a\"\nbase = { model = \"tiny\" }\n\
        task = { kind = \"classification\", dataset = \"d\", labels = [\"x\", \"y\"] }\n\
        method = { id = \"fedit\", rank = 2, targets = [\"query\"] }\n\
        train = { local_steps = 1, batch = 1, lr = 0.1 }\n\
        rounds = { count = 1, cohort = 1, quorum = 1, deadline_s = 100, max_attempts = 1 }\n"
        .to_owned();
    let run = rondo_proto::RunId::new("a-1").unwrap();
    bench
        .driver
        .step(Input::CreateRun {
            run: run.clone(),
            run_file,
            base: base.clone(),
            start_adapter: None,
            key: rondo_rounds::CohortKey::new([1; 32]),
        })
        .await
        .unwrap();
    let client = ClientId::new("movies").unwrap();
    bench.driver.step(enrolled("movies")).await.unwrap();
    let poll = Input::Poll {
        client: client.clone(),
        datasets: vec!["d".into()],
        bases: vec![base.digest],
        tokens: Vec::new(),
        max_rank: 0,
        version: String::new(),
    };
    bench.driver.step(poll.clone()).await.unwrap();
    let answer = Input::Answer { client, run: run.clone(), accept: true, reason: String::new(), rank: 0 };
    bench.driver.step(answer).await.unwrap();
    bench.driver.step(poll).await.unwrap();
    assert_eq!(phase(&bench.driver, &run).await, "training");
    run
}

async fn phase(driver: &Driver, run: &rondo_proto::RunId) -> String {
    let run = run.clone();
    driver.view(move |engine| engine.run_summary(&run).unwrap().phase).await.unwrap()
}

#[tokio::test]
async fn a_deadline_comes_without_any_input() {
    let mut bench = start(Arc::default());
    let run = in_training(&bench).await;

    // The clock jumps past the deadline; the driver notices at the next wake or the next command,
    // whichever is first.
    bench.clock.0.fetch_add(101_000, Ordering::SeqCst);
    bench.driver.commit(also()).await.unwrap();
    assert_eq!(phase(&bench.driver, &run).await, "ended");
    let mut said = Vec::new();
    while let Ok(request) = bench.requests.try_recv() {
        if let DriverRequest::Effect(Effect::Announce(event)) = request {
            said.push(event.text);
        }
    }
    assert!(!said.is_empty());
}

#[tokio::test]
async fn a_deadline_whose_commit_failed_comes_again_by_itself() {
    let bench = start(Arc::default());
    let run = in_training(&bench).await;
    bench.store.fail_commits(true);
    bench.clock.0.fetch_add(101_000, Ordering::SeqCst);
    let refused = bench.driver.commit(also()).await.unwrap_err();
    assert!(matches!(refused, DriverError::Store(_)), "{refused}");
    bench.store.fail_commits(false);
    // Nobody calls; the records say how it goes on.
    let ended = || {
        let records = bench.store.scan(&format!("run/{run}")).unwrap();
        records.values().any(|bytes| String::from_utf8_lossy(bytes).contains("\"ended\""))
    };
    assert!(!ended());
    for _ in 0..50 {
        if ended() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the deadline was forgotten");
}
