//! A coordinator that dies in the middle of a round goes on where it stood.

use rondo_coordinator::data_dir::DataDir;
use rondo_coordinator::store::Store;
use rondo_coordinator::store::durable::DurableStore;
use rondo_proto::v1;
use rondo_proto::v1::upload_message::Part as UploadPart;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::coordinator::Coordinator;
use crate::fake_client::{header, messages, work_until_ended};
use crate::tensors::run_file;
use crate::uploads::{Scene, scene};

/// Kills the coordinator, does something to its directory, starts it again; clients and operator
/// find it.
fn restart(scene: Scene, meanwhile: impl FnOnce(&std::path::Path)) -> Scene {
    let Scene { coordinator, run, mut clients, assignments, .. } = scene;
    let dir = coordinator.dir.clone();
    coordinator.kill();
    meanwhile(&dir);
    let coordinator = Coordinator::start(&dir);
    clients.iter_mut().for_each(|client| client.reconnect(coordinator.address));
    let operator = coordinator.operator();
    Scene { coordinator, operator, run, clients, assignments }
}

/// One update is accepted and a second one half sent; then the coordinator dies.
async fn killed_mid_round(method: &str, meanwhile: impl FnOnce(&std::path::Path)) {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = scene(dir.path(), run_file(method, 2)).await;
    let before = scene.operator.run(&scene.run).await;
    let first = scene.assignments[0].clone();
    let bytes = scene.clients[0].update(&first);
    assert!(scene.clients[0].upload(&first, &bytes).await.unwrap().accepted);
    let accepted = header(&first, &bytes);

    let second = scene.assignments[1].clone();
    let bytes = scene.clients[1].update(&second);
    let head = header(&second, &bytes);
    let (sender, receiver) = mpsc::channel(4);
    let half = v1::UploadMessage { part: Some(UploadPart::Data(bytes::Bytes::copy_from_slice(&bytes[..512]))) };
    sender.send(messages(head.clone(), &[]).remove(0)).await.unwrap();
    sender.send(half).await.unwrap();
    let mut api = scene.clients[1].api.clone();
    let in_progress = tokio::spawn(async move { api.upload(ReceiverStream::new(receiver)).await });
    while scene.clients[1].upload_status(&head).await.unwrap().stored_bytes < 512 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }

    let mut scene = restart(scene, meanwhile);
    in_progress.await.unwrap().unwrap_err();
    let after = scene.operator.run(&scene.run).await;
    let place = |run: &v1::RunSummary| {
        let open = run.open.clone().unwrap();
        (run.phase.clone(), run.round, open.attempt, open.started_at_ms, run.deadline_ms)
    };
    assert_eq!(place(&after), place(&before), "the same round, attempt and deadline");
    // The accepted update is still accepted, the half of the other still there.
    let key = accepted.key.clone().unwrap();
    let settled = scene.clients[0].api.upload_status(key.clone()).await.unwrap().into_inner();
    assert!(settled.accepted);
    assert_eq!(scene.clients[1].upload_status(&head).await.unwrap().stored_bytes, 512);
    let rest = v1::UploadHeader { offset: 512, ..head };
    assert!(scene.clients[1].send(rest, &bytes).await.unwrap().accepted);

    let ended = work_until_ended(&mut scene.clients, &scene.operator, &scene.run).await;
    assert_eq!(ended.outcome, "completed");
    let round = scene.operator.round(&scene.run, first.round).await;
    assert_eq!(round.attempt, 1);
    assert!(round.participants.iter().all(|part| part.state == "accepted"), "{round:#?}");
    let same = round.participants.iter().filter(|part| part.update_digest == key.digest).count();
    assert_eq!(same, 1, "the update of before the restart counts once");
    scene.coordinator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_training() {
    killed_mid_round("fedit", |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_warm_up() {
    killed_mid_round("fed-sb", |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_database_destroyed_meanwhile() {
    killed_mid_round("flora", |dir| {
        let db = DataDir::new(dir).store().join("sled").join("db");
        std::fs::write(&db, vec![0x5a; 8192]).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn between_the_commit_and_the_aggregation() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = scene(dir.path(), run_file("ffa-lora", 1)).await;
    let work: Vec<_> = scene.assignments.clone();
    for (client, assignment) in scene.clients.iter_mut().zip(&work) {
        client.work(assignment).await.unwrap();
    }
    // However far the aggregation came, the next life ends the run with one aggregate of three.
    let mut scene = restart(scene, |_| {});
    let ended = work_until_ended(&mut scene.clients, &scene.operator, &scene.run).await;
    assert_eq!(ended.outcome, "completed");
    let round = scene.operator.round(&scene.run, 1).await;
    assert_eq!(round.participants.iter().filter(|part| part.state == "accepted").count(), 3);
    assert_eq!(std::fs::read_dir(scene.coordinator.dir.join("staging")).unwrap().flatten().count(), {
        let names = ["uploads", "aggregates", "initials"];
        names.iter().filter(|name| scene.coordinator.dir.join("staging").join(name).exists()).count()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_needs_is_swept_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let scene = scene(dir.path(), run_file("ffa-lora", 1)).await;
    let run = scene.run.clone();
    let hex = "ab".repeat(32);
    let scene = restart(scene, |dir| {
        let blobs = dir.join("blobs").join(&run);
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(&hex), b"orphan").unwrap();
        let staged = dir.join("staging/uploads").join(&run).join("1.9");
        std::fs::create_dir_all(&staged).unwrap();
        std::fs::write(staged.join(format!("movies.{hex}")), b"late").unwrap();
    });
    assert!(!scene.coordinator.dir.join("blobs").join(&run).join(&hex).exists());
    assert!(!scene.coordinator.dir.join("staging/uploads").join(&run).exists());
    let store = scene.coordinator.dir.join("store");
    scene.coordinator.stop();
    // A graceful end leaves a store that opens, whole.
    assert!(!DurableStore::open(&store).unwrap().load().unwrap().is_empty());
}
