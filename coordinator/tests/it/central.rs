//! A run with privacy per client, end to end.

use std::path::Path;
use std::sync::Arc;

use rondo_coordinator::clock::SystemClock;
use rondo_coordinator::config::Config;
use rondo_coordinator::data_dir::DataDir;
use rondo_coordinator::serve::serve;
use rondo_dp::{Contents, Ledger};
use rondo_methods::{Registry, TensorFile};

use crate::coordinator::{Coordinator, Operator, initialise};
use crate::fake_client::{Did, FakeClient, work_until_ended};
use crate::tensors::run_file;

fn private(method: &str, rounds: u32, clip: f64) -> String {
    let privacy = format!("unit = \"client\"\nepsilon = 8.0\ndelta = 1e-5\nclip = {clip}\nnoise_multiplier = 2.0");
    format!("{}\n[privacy]\n{privacy}\n", run_file(method, rounds))
}

/// A coordinator, its operator and three clients.
async fn federation(data: &Path, dir: &Path) -> (Coordinator, Operator, Vec<FakeClient>) {
    initialise(data);
    let coordinator = Coordinator::start(data);
    let operator = coordinator.operator();
    let mut clients = Vec::new();
    for name in ["movies", "products", "news"] {
        clients.push(FakeClient::join(&coordinator, dir, name).await);
    }
    (coordinator, operator, clients)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_privacy_per_client_publishes_noised_sums_and_enters_each() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_coordinator, operator, mut clients) = federation(&data, dir.path()).await;
    let run = operator.create_run(private("fedit", 1, 100.0)).await.run;
    let summary = work_until_ended(&mut clients, &operator, &run).await;
    assert_eq!(summary.outcome, "completed");
    assert!(summary.privacy.contains("per client, clip 100, noise multiplier 2.0000 on the sum over 3"), "{summary:?}");
    assert!(summary.privacy.ends_with("in 1 release"), "{}", summary.privacy);

    let Contents { state: books, head, .. } = Ledger::read(&DataDir::new(&data).ledger()).unwrap();
    assert_eq!(books.central[&run].releases, [(1, 1)]);
    assert_eq!(books.central[&run].domain, "reviews");
    let record = operator.round(&run, 1).await;
    let released = record.released.unwrap();
    assert_eq!((released.unit.as_str(), released.total_steps), ("client", 1));
    assert_eq!(record.aggregation_error, None, "the exact mean is private");
    assert!(record.participants.iter().all(|part| part.update_norm == 0.0 && part.examples == 0));
    assert_eq!(released.ledger_head, head.to_string());
    assert!(record.notes.iter().all(|note| !note.contains("ledger")), "{:?}", record.notes);
    // Updates hold numbers below 0.1; what is published is noise of deviation 2 * 100 / 3 around
    // their mean.
    let blob = data.join("blobs").join(&run).join(record.global_digest.strip_prefix("blake3:").unwrap());
    let tensors = TensorFile::open(&blob).unwrap().read_all(|_| true).unwrap();
    let numbers: Vec<f64> = tensors.values().flat_map(|t| t.data.iter().map(|&x| f64::from(x))).collect();
    let deviation = (numbers.iter().map(|x| x * x).sum::<f64>() / numbers.len() as f64).sqrt();
    assert!((deviation / (200.0 / 3.0) - 1.0).abs() < 0.25, "{deviation}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_older_than_the_ledger_are_refused_and_nothing_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (coordinator, operator, mut clients) = federation(&data, dir.path()).await;
    coordinator.stop();
    let older = dir.path().join("older");
    copy(&data.join("store"), &older);

    let coordinator = Coordinator::start(&data);
    clients.iter_mut().for_each(|client| client.reconnect(coordinator.address));
    drop(operator);
    let operator = coordinator.operator();
    let run = operator.create_run(private("fedit", 1, 100.0)).await.run;
    work_until_ended(&mut clients, &operator, &run).await;
    coordinator.stop();
    let newest = dir.path().join("newest");
    let blobs = data.join("blobs").join(&run);
    copy(&data.join("store"), &newest);
    let held = std::fs::read_dir(&blobs).unwrap().count();
    assert!(held > 0);

    std::fs::remove_dir_all(data.join("store")).unwrap();
    copy(&older, &data.join("store"));
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
    let place = DataDir::new(&data);
    let clock = Arc::new(SystemClock);
    let serving = serve(&place, config, Registry::builtin(), clock, |_| {}, std::future::ready(()));
    let refusal = serving.await.unwrap_err().to_string();
    for words in [
        format!("the ledger has 1 releases of run `{run}`, the records have 0"),
        data.join("store").display().to_string(),
        data.join("ledger.jsonl").display().to_string(),
        "restore the newest copy of the records".to_owned(),
    ] {
        assert!(refusal.contains(&words), "{words}: {refusal}");
    }
    assert_eq!(std::fs::read_dir(&blobs).unwrap().count(), held, "what the newer records need is kept");

    std::fs::remove_dir_all(data.join("store")).unwrap();
    copy(&newest, &data.join("store"));
    let coordinator = Coordinator::start(&data);
    assert_eq!(coordinator.operator().run(&run).await.outcome, "completed");
}

/// Copies a folder and all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let place = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_was_not_clipped_is_refused_at_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (_coordinator, operator, mut clients) = federation(&data, dir.path()).await;
    let run = operator.create_run(private("fedit", 1, 0.01)).await.run;
    let refusal = loop {
        let mut refused = None;
        for client in &mut clients {
            match client.step().await {
                Err(status) => refused = Some(status),
                Ok(did) => assert_ne!(did, Did::Trained),
            }
        }
        if let Some(status) = refused {
            break status;
        }
    };
    let message = refusal.message();
    assert!(message.contains("the update arrives unclipped: its change is larger than 0.01, at"), "{message}");
    let open = operator.run(&run).await.open.unwrap();
    assert!(open.participants.iter().any(|part| part.reason.contains("arrives unclipped")), "{open:?}");
}
