//! Updates on their way in: resumed, repeated, damaged, too large, not a number.

use std::path::Path;
use std::time::Duration;

use rondo_coordinator::config::Config;
use rondo_methods::Instance;
use rondo_proto::Digest;
use rondo_proto::error::ErrorCode;
use rondo_proto::v1;
use rondo_proto::v1::upload_message::Part as UploadPart;
use rondo_wire::status::code_of;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::coordinator::{Coordinator, Operator, initialise};
use crate::fake_client::{FakeClient, header, kind, messages, work_until_ended};
use crate::tensors::{file, job, random, run_file};

/// A started coordinator, its run, three clients and their assignments for round 1.
pub(crate) struct Scene {
    pub(crate) coordinator: Coordinator,
    pub(crate) operator: Operator,
    pub(crate) run: String,
    pub(crate) clients: Vec<FakeClient>,
    pub(crate) assignments: Vec<v1::Assignment>,
}

pub(crate) async fn scene(dir: &Path, run_file: String) -> Scene {
    scene_with(dir, run_file, Config::default()).await
}

async fn scene_with(dir: &Path, run_file: String, config: Config) -> Scene {
    let data = dir.join("data");
    initialise(&data);
    let coordinator = Coordinator::start_with(&data, config);
    let operator = coordinator.operator();
    let run = operator.create_run(run_file).await.run;
    let mut clients = Vec::new();
    for name in ["movies", "news", "tweets"] {
        clients.push(FakeClient::join(&coordinator, dir, name).await);
    }
    // All accept before the first gets work: the cohort is drawn from those who did.
    for client in &mut clients {
        client.step().await.unwrap();
    }
    let mut assignments = Vec::new();
    for client in &mut clients {
        assignments.push(client.assignment().await);
    }
    Scene { coordinator, operator, run, clients, assignments }
}

fn staged(scene: &Scene) -> usize {
    fn files(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
    }
    files(&scene.coordinator.dir.join("staging/uploads"))
}

async fn participant(scene: &Scene, client: &str) -> v1::Participant {
    let open = scene.operator.run(&scene.run).await.open.unwrap();
    open.participants.into_iter().find(|part| part.client == client).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_is_resumed_and_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    // Wide enough for several chunks would take long to train; a small file in small messages does
    // the same.
    let mut scene = scene(dir.path(), run_file("fedit", 1)).await;
    let assignment = scene.assignments[0].clone();
    let bytes = scene.clients[0].update(&assignment);
    let header = header(&assignment, &bytes);

    // The stream breaks off after 700 bytes.
    let (sender, receiver) = mpsc::channel(4);
    let part = v1::UploadMessage { part: Some(UploadPart::Data(bytes::Bytes::copy_from_slice(&bytes[..700]))) };
    sender.send(messages(header.clone(), &[]).remove(0)).await.unwrap();
    sender.send(part).await.unwrap();
    let mut api = scene.clients[0].api.clone();
    let broken = tokio::spawn(async move { api.upload(ReceiverStream::new(receiver)).await });
    let mut stored = 0;
    for _ in 0..200 {
        stored = scene.clients[0].upload_status(&header).await.unwrap().stored_bytes;
        if stored == 700 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(stored, 700);

    // An offset beyond what is stored is refused and names what is; the open stream is taken over.
    let beyond = v1::UploadHeader { offset: 900, ..header.clone() };
    let refused = scene.clients[0].send(beyond, &bytes).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::OutOfRange);
    assert!(refused.message().contains("700"), "{refused}");
    let taken_over = broken.await.unwrap().unwrap_err();
    assert_eq!(code_of(&taken_over), ErrorCode::Aborted);
    drop(sender);

    // A stream that ends early is no error: the rest may follow.
    let half = v1::UploadHeader { offset: 700, ..header.clone() };
    let reply = scene.clients[0].send(half.clone(), &bytes[..1000]).await.unwrap();
    assert_eq!((reply.stored_bytes, reply.accepted), (1000, false));
    let rest = v1::UploadHeader { offset: 1000, ..header.clone() };
    let reply = scene.clients[0].send(rest, &bytes).await.unwrap();
    assert_eq!((reply.stored_bytes, reply.accepted), (bytes.len() as u64, true));
    let counted = participant(&scene, "movies").await.bytes_up;
    assert!(counted > bytes.len() as u64, "the headers of every stream are counted: {counted}");

    // Sent again, from wherever: accepted, and nothing is counted twice.
    for offset in [0, 1000, bytes.len() as u64] {
        let again = v1::UploadHeader { offset, ..header.clone() };
        assert!(scene.clients[0].send(again, &bytes).await.unwrap().accepted);
    }
    assert!(scene.clients[0].upload_status(&header).await.unwrap().accepted);
    assert_eq!(participant(&scene, "movies").await.bytes_up, counted);
    assert_eq!(staged(&scene), 0);

    let other = scene.clients[1].update(&assignment);
    let refused = scene.clients[0].upload(&assignment, &other).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::AlreadyExists, "{refused}");
    let ended = work_until_ended(&mut scene.clients, &scene.operator, &scene.run).await;
    assert_eq!(ended.outcome, "completed");
    let round = scene.operator.round(&scene.run, 1).await;
    assert_eq!(round.participants.iter().filter(|part| part.state == "accepted").count(), 3);
    // After the round has closed the answer is still the same.
    assert!(scene.clients[0].send(header, &bytes).await.unwrap().accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_way_costs_a_repetition_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = scene(dir.path(), run_file("ffa-lora", 1)).await;
    let assignment = scene.assignments[0].clone();
    let bytes = scene.clients[0].update(&assignment);
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let refused = scene.clients[0].send(header(&assignment, &bytes), &damaged).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::Aborted);
    assert!(refused.message().contains("expected blake3:"), "{refused}");
    assert_eq!(staged(&scene), 0);
    assert!(scene.clients[0].upload(&assignment, &bytes).await.unwrap().accepted);
    assert_eq!(participant(&scene, "movies").await.state, "accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_update_is_refused_and_the_round_goes_on_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = scene(dir.path(), run_file("fedit", 1)).await;
    let assignment = scene.assignments[0].clone();
    let job = job(&assignment.run_file);
    let manifest = job.upload_manifest(kind(&assignment), Instance::in_round(assignment.round).with_rank(4));
    let mut random = random(3);
    let nan = file(&manifest, || if random() > 0.09 { f32::NAN } else { 0.0 });
    let refused = scene.clients[0].upload(&assignment, &nan).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::InvalidArgument);
    assert!(refused.message().contains("NaN"), "{refused}");
    let part = participant(&scene, "movies").await;
    assert_eq!(part.state, "dropped");
    assert!(part.reason.contains("NaN"), "{}", part.reason);
    assert_eq!(staged(&scene), 0);
    let blobs = scene.coordinator.dir.join("blobs").join(&scene.run);
    assert_eq!(std::fs::read_dir(blobs).map_or(0, |files| files.count()), 0);

    let ended = work_until_ended(&mut scene.clients, &scene.operator, &scene.run).await;
    assert_eq!(ended.outcome, "completed");
    let round = scene.operator.round(&scene.run, 1).await;
    let mut states: Vec<_> =
        round.participants.iter().map(|part| (part.client.as_str(), part.state.as_str())).collect();
    states.sort_unstable();
    assert_eq!(states, [("movies", "dropped"), ("news", "accepted"), ("tweets", "accepted")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_other_layouts_and_other_sizes_are_refused_by_type() {
    for case in ["garbage", "shape", "oversized", "longer", "no header", "second header", "empty"] {
        let dir = tempfile::tempdir().unwrap();
        let mut scene = scene(dir.path(), run_file("fedit", 1)).await;
        let assignment = scene.assignments[0].clone();
        let bytes = scene.clients[0].update(&assignment);
        let head = header(&assignment, &bytes);
        let client = &mut scene.clients[0];
        let mut raw = async |messages: Vec<v1::UploadMessage>| {
            client.api.upload(tokio_stream::iter(messages)).await.map(tonic::Response::into_inner).unwrap_err()
        };
        let (refused, words, is_dropped) = match case {
            "garbage" => {
                let noise: Vec<u8> = (0..bytes.len()).map(|n| (n * 37 % 251) as u8).collect();
                (raw(messages(header(&assignment, &noise), &noise)).await, "header", true)
            }
            "shape" => {
                let mut manifest = job(&assignment.run_file)
                    .upload_manifest(kind(&assignment), Instance::in_round(assignment.round).with_rank(4));
                manifest.iter_mut().for_each(|entry| entry.shape.reverse());
                let other = file(&manifest, || 0.5);
                (raw(messages(header(&assignment, &other), &other)).await, "layout", true)
            }
            "oversized" => {
                let head = v1::UploadHeader { total_bytes: 1 << 30, ..head };
                (raw(messages(head, &bytes)).await, "1073741824", true)
            }
            "longer" => {
                let longer = [bytes.clone(), vec![0; 10]].concat();
                (raw(messages(head, &longer)).await, "were announced", false)
            }
            "no header" => (raw(messages(head, &bytes).split_off(1)).await, "header", false),
            "second header" => {
                let twice = vec![messages(head.clone(), &[]).remove(0), messages(head, &[]).remove(0)];
                (raw(twice).await, "second header", false)
            }
            _ => (raw(vec![]).await, "empty", false),
        };
        assert_eq!(code_of(&refused), ErrorCode::InvalidArgument, "{case}: {refused}");
        assert!(refused.message().contains(words), "{case}: {refused}");
        let state = participant(&scene, "movies").await.state;
        assert_eq!(state == "dropped", is_dropped, "{case}: {state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_norm_above_the_run_s_bound_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = run_file("fedit", 1).replace("grace_s = 60", "grace_s = 60\nmax_update_norm = 0.5");
    let mut scene = scene(dir.path(), text).await;
    let assignment = scene.assignments[0].clone();
    let manifest =
        job(&assignment.run_file).upload_manifest(kind(&assignment), Instance::in_round(assignment.round).with_rank(4));
    let large = file(&manifest, || 1.0);
    let refused = scene.clients[0].upload(&assignment, &large).await.unwrap_err();
    assert!(refused.message().contains("max_update_norm"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_uploads_or_downloads_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = scene(dir.path(), run_file("fedit", 1)).await;
    let outsider = FakeClient::join(&scene.coordinator, dir.path(), "outsider").await;
    let assignment = scene.assignments[0].clone();
    let bytes = scene.clients[0].update(&assignment);
    let mut outsider = outsider;
    outsider.poll().await.unwrap();
    let refused = outsider.upload(&assignment, &bytes).await.unwrap_err();
    assert_ne!(code_of(&refused), ErrorCode::Internal, "{refused}");
    assert!(scene.clients[0].upload(&assignment, &bytes).await.unwrap().accepted);
    let digest = header(&assignment, &bytes).key.unwrap().digest;
    for client in [&mut outsider, &mut scene.clients[1]] {
        let refused = client.download(&assignment.run, &digest, 0).await.unwrap_err();
        assert_eq!(code_of(&refused), ErrorCode::PermissionDenied, "another's update is not to be had");
    }
    let wrong = v1::Assignment { round: 9, ..assignment };
    let refused = scene.clients[1].upload(&wrong, &bytes).await.unwrap_err();
    assert!(refused.message().contains('9'), "{refused}");
}

/// A run file on the wide base, whose updates are some 2 MiB.
fn wide() -> String {
    run_file("fedit", 1).replace("\"tiny\"", "\"wide\"").replace("rank = 4", "rank = 256")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_several_chunks_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = scene(dir.path(), wide()).await;
    let assignment = scene.assignments[0].clone();
    let bytes = scene.clients[0].update(&assignment);
    assert!(bytes.len() > 2 << 20);
    let head = header(&assignment, &bytes);
    let reply = scene.clients[0].send(head.clone(), &bytes[..1_500_000]).await.unwrap();
    assert_eq!((reply.stored_bytes, reply.accepted), (1_500_000, false));
    let rest = v1::UploadHeader { offset: 1_500_000, ..head };
    assert!(scene.clients[0].send(rest, &bytes).await.unwrap().accepted);
    let part = participant(&scene, "movies").await;
    assert!((part.bytes_up as f64) < part.layout_bytes_up as f64 * 1.03 + 4096.0, "{part:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_staging_folder_refuses_and_drops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_staging_bytes: 1 << 20, ..Config::default() };
    let mut scene = scene_with(dir.path(), wide(), config).await;
    let assignment = scene.assignments[0].clone();
    let bytes = scene.clients[0].update(&assignment);
    let refused = scene.clients[0].upload(&assignment, &bytes).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::ResourceExhausted);
    assert_ne!(participant(&scene, "movies").await.state, "dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_comes_in_chunks_from_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    let scene = scene(dir.path(), run_file("fedit", 1)).await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let digest = Digest::of(&bytes);
    let folder = scene.coordinator.dir.join("blobs").join(&scene.run);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(digest.hex()), &bytes).unwrap();
    let fetch = async |offset: u64| {
        let request = v1::DownloadRequest { run: scene.run.clone(), digest: digest.to_string(), offset };
        let mut chunks = scene.operator.api.clone().fetch_blob(request).await?.into_inner();
        let (mut got, mut total) = (Vec::new(), 0);
        while let Some(chunk) = chunks.message().await? {
            assert!(chunk.data.len() <= 1 << 20);
            got.extend_from_slice(&chunk.data);
            total += chunk.total_bytes;
        }
        assert_eq!(total, 3_000_000, "named once");
        Ok::<_, tonic::Status>(got)
    };
    for offset in [0, 1, 1 << 20, 2_999_999, 3_000_000] {
        assert!(fetch(offset).await.unwrap() == bytes[offset as usize..], "from {offset}");
    }
    assert_eq!(code_of(&fetch(3_000_001).await.unwrap_err()), ErrorCode::OutOfRange);
    let request = v1::DownloadRequest { run: scene.run.clone(), digest: Digest::of(b"no").to_string(), offset: 0 };
    let missing = scene.operator.api.clone().fetch_blob(request).await.unwrap_err();
    assert_eq!(code_of(&missing), ErrorCode::NotFound);
}
