use std::time::Duration;

use rondo_dp::{ClientPlan, Ledger, Privacy, Terms};
use rondo_rounds::{Engine, RoundKind};

use super::*;
use crate::executor::tests::{Bench, bench_with, private};

/// Charged releases and published rounds, by the run's records.
async fn standing(bench: &Bench) -> (u32, usize) {
    let run = bench.run.clone();
    let read = move |engine: &Engine| {
        let run = &engine.state().runs[&run];
        (run.live.charged.as_ref().map_or(0, |charged| charged.releases), run.publications().count())
    };
    bench.driver.view(read).await.unwrap()
}

async fn until(bench: &Bench, what: &str, so: impl Fn((u32, usize)) -> bool) {
    for _ in 0..200 {
        if so(standing(bench).await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never happened: {what}; {:?}", standing(bench).await);
}

fn entered(bench: &Bench) -> usize {
    let books = Ledger::read(&bench.dir.path().join("ledger")).unwrap().state;
    books.central.get(bench.run.as_str()).map_or(0, |run| run.releases.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_charged_then_entered_then_made() {
    let held = bench_with(private(), &["movies", "news"], false, |executor, _| {
        // Whoever wants to enter something waits for this.
        let ledger = Arc::clone(&executor.releaser.ledger);
        let (release, is_released) = std::sync::mpsc::channel::<()>();
        let (hold, is_held) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ledger = ledger.lock().unwrap();
            hold.send(()).unwrap();
            let _ = is_released.recv();
        });
        is_held.recv().unwrap();
        release
    });
    let (bench, release) = held.await;
    until(&bench, "it is charged", |(charged, _)| charged == 1).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(
        (standing(&bench).await, entered(&bench)),
        ((1, 0), 0),
        "charged, and nothing is published without the entry"
    );
    release.send(()).unwrap();
    until(&bench, "it is published", |(_, published)| published == 1).await;
    assert_eq!((standing(&bench).await, entered(&bench)), ((1, 1), 1));
    let run = bench.run.clone();
    let record = bench.driver.view(move |engine| engine.round_record(&run, 1).unwrap()).await.unwrap();
    let head = Ledger::read(&bench.dir.path().join("ledger")).unwrap().head;
    assert_eq!(record.released.unwrap().ledger_head, head.to_string(), "the record names the entry");
}

fn nobody_came(bench: &Bench) -> AggregatePlan {
    let plan = ClientPlan::new(&Privacy::new("client", Terms::new(8.0, 1e-5, 1.0)).unwrap(), 2, 1).unwrap();
    AggregatePlan {
        work: WorkKey { run: bench.run.clone(), round: 1, attempt: 1 },
        kind: RoundKind::Train,
        updates: Vec::new(),
        start_adapter: None,
        frozen: None,
        published: Vec::new(),
        server: None,
        release: Some(Release { plan, clip: 1.0, domain: "reviews".into() }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_cannot_be_written_yields_no_release() {
    let (bench, ()) = bench_with(private(), &["movies", "news"], false, |_, dir| {
        // Nobody, root neither, can write a file where a folder is.
        std::fs::create_dir(dir.join("ledger.head.new")).unwrap();
    })
    .await;
    let reported =
        |notes: &[String]| notes.iter().any(|note| note.contains("privacy ledger") && note.contains("ledger.head"));
    let mut failed = false;
    for _ in 0..200 {
        let run = bench.run.clone();
        let record = bench.driver.view(move |engine| engine.round_record(&run, 1)).await.unwrap();
        failed = record.is_some_and(|record| reported(&record.notes));
        if failed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(failed, "the attempt is over, and says why");
    assert_eq!(
        (standing(&bench).await, entered(&bench)),
        ((1, 0), 0),
        "it is charged for nothing, and nothing is published"
    );

    // The executor itself, asked for the release of a round to which nobody came: nothing is drawn
    // before it is entered, and what is charged once is charged once, whatever fails after it.
    let plan = nobody_came(&bench);
    let job = crate::test_tensors::job(&private());
    let mut state = ReleaseState { charged: true, ..ReleaseState::default() };
    let failure = bench.executor.releaser.release(&job, &plan, &mut state).await.unwrap_err();
    assert!(matches!(failure, AggregationError::Ledger(LedgerError::Io { .. })), "{failure}");
    assert!(state.charged && state.entered.is_none() && state.released.is_none());
    std::fs::remove_dir(bench.dir.path().join("ledger.head.new")).unwrap();
    bench.executor.releaser.release(&job, &plan, &mut state).await.unwrap();
    assert!(state.released.is_some());
    assert_eq!((standing(&bench).await.0, entered(&bench)), (1, 1));
}
