//! Runs that start from an adapter: its way in, what is refused, and how long it stays.

use std::path::{Path, PathBuf};

use rondo_coordinator::config::Config;
use rondo_methods::TensorFile;
use rondo_proto::error::ErrorCode;
use rondo_proto::manifest::TensorEntry;
use rondo_proto::v1::initial_message::Part as AdapterPart;
use rondo_proto::{Digest, v1};
use rondo_wire::status::{code_of, explain};
use rondo_wire::transfer::CHUNK_BYTES;
use tonic::Status;

use crate::coordinator::{Coordinator, Operator, initialise};
use crate::fake_client::{FakeClient, work_until_ended};
use crate::tensors::{base, file, random, run_file, wide_base};

fn entries(tensors: &[(&str, &[usize])]) -> Vec<TensorEntry> {
    let entry = |(name, shape): &(&str, &[usize])| TensorEntry {
        name: (*name).to_owned(),
        shape: shape.to_vec(),
        dtype: "F32".into(),
    };
    tensors.iter().map(entry).collect()
}

/// A change of one layer at rank 4, and a head of so many labels.
fn adapter(labels: usize, number: impl FnMut() -> f32) -> Vec<u8> {
    let head = [("head.bias", &[labels][..]), ("head.weight", &[labels, 16])];
    let factors = [("layer.0.query.lora_A", &[4, 16][..]), ("layer.0.query.lora_B", &[16, 4])];
    file(&entries(&[head, factors].concat()), number)
}

async fn send(operator: &Operator, header: v1::InitialHeader, bytes: &[u8]) -> Result<v1::InitialAdapter, Status> {
    let data = bytes.chunks(CHUNK_BYTES).map(|chunk| AdapterPart::Data(bytes::Bytes::copy_from_slice(chunk)));
    let parts = std::iter::once(AdapterPart::Header(header)).chain(data);
    let messages: Vec<_> = parts.map(|part| v1::InitialMessage { part: Some(part) }).collect();
    Ok(operator.api.clone().upload_initial(tokio_stream::iter(messages)).await?.into_inner())
}

fn header(base: &str, bytes: &[u8]) -> v1::InitialHeader {
    v1::InitialHeader { base: base.into(), digest: Digest::of(bytes).to_string(), total_bytes: bytes.len() as u64 }
}

async fn upload(operator: &Operator, bytes: &[u8]) -> Result<v1::InitialAdapter, Status> {
    send(operator, header("tiny", bytes), bytes).await
}

async fn create(operator: &Operator, run_file: String, initial_digest: &str) -> Result<v1::RunSummary, Status> {
    let request = v1::CreateRunRequest { run_file, initial_digest: initial_digest.into() };
    Ok(operator.api.clone().create_run(request).await?.into_inner())
}

async fn start(dir: &Path, config: Config) -> (Coordinator, Operator) {
    let data = dir.join("data");
    initialise(&data);
    let coordinator = Coordinator::start_with(&data, config);
    let operator = coordinator.operator();
    operator.api.clone().add_base(base()).await.unwrap();
    operator.api.clone().add_base(wide_base()).await.unwrap();
    (coordinator, operator)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_stands_on_what_was_uploaded_through_restarts_and_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (coordinator, operator) = start(dir.path(), Config::default()).await;
    let bytes = adapter(2, random(5));
    let digest = Digest::of(&bytes).to_string();
    let uploaded = upload(&operator, &bytes).await.unwrap();
    assert_eq!(
        (uploaded.digest.as_str(), uploaded.targets.as_slice()),
        (digest.as_str(), &["layer.0.query".to_owned()][..])
    );
    assert_eq!(
        (uploaded.bytes, uploaded.layout_bytes, uploaded.head_labels),
        (bytes.len() as u64, (2 * 64 + 34) * 4, 2)
    );
    // Twice is once.
    assert_eq!(upload(&operator, &bytes).await.unwrap(), uploaded);
    let data = coordinator.dir.clone();
    assert_eq!(files(&data.join("staging/initials")).len(), 1);
    let created = create(&operator, run_file("fed-sb", 2), &digest).await.unwrap();
    assert_eq!(created.initial_digest, digest);
    let run = created.run;
    let blob = data.join("blobs").join(&run).join(digest.strip_prefix("blake3:").unwrap());

    let mut clients = Vec::new();
    for name in ["movies", "news", "tweets"] {
        clients.push(FakeClient::join(&coordinator, dir.path(), name).await);
    }
    for client in &mut clients {
        client.step().await.unwrap();
    }
    let before = clients[0].assignment().await;
    assert_eq!(before.kind(), v1::WorkKind::WarmUp);
    assert_eq!(
        (before.initial.clone(), before.state.clone().unwrap().initial_digest),
        (Some(uploaded), digest.clone())
    );
    // Whoever has the work in hand may fetch it.
    assert_eq!(clients[0].download(&run, &digest, 0).await.unwrap(), bytes);

    coordinator.kill();
    let coordinator = Coordinator::start(&data);
    clients.iter_mut().for_each(|client| client.reconnect(coordinator.address));
    let operator = coordinator.operator();
    assert!(files(&data.join("staging/initials")).is_empty(), "the run has a copy of its own");
    assert_eq!(clients[0].assignment().await.initial, before.initial);
    let ended = work_until_ended(&mut clients, &operator, &run).await;
    assert_eq!(ended.outcome, "completed", "{ended:#?}");
    let request = v1::GetRunRequest { run: run.clone() };
    let rounds = operator.api.clone().list_rounds(request).await.unwrap().into_inner().rounds;
    assert!(rounds.len() == 3 && rounds.iter().all(|record| record.initial_digest == digest));

    // The warm-up publishes the head to begin with: the adapter's. And what is published says what
    // it stands on.
    let initial = TensorFile::open(&blob).unwrap();
    let path = |digest: &str| data.join("blobs").join(&run).join(digest.strip_prefix("blake3:").unwrap());
    let first = TensorFile::open(&path(&rounds[0].global_digest)).unwrap();
    for name in ["head.weight", "head.bias"] {
        assert_eq!(first.read(name).unwrap(), initial.read(name).unwrap());
    }
    assert_eq!(first.metadata()["rondo.initial"], digest);

    // The next start deletes blobs that no run needs: not this one, an export needs it.
    coordinator.stop();
    let coordinator = Coordinator::start(&data);
    assert_eq!(std::fs::read(&blob).unwrap(), bytes);
    let request = v1::GetAdapterRequest { run, round: None };
    let adapter = coordinator.operator().api.get_adapter(request).await.unwrap().into_inner();
    assert_eq!(adapter.state.unwrap().initial_digest, digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_start_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_staging_bytes: 20_000, ..Config::default() };
    let (coordinator, operator) = start(dir.path(), config).await;
    let good = adapter(2, random(5));
    let words = |status: Status| {
        let (message, hint) = explain(&status);
        (code_of(&status), format!("{message} {}", hint.unwrap_or_default()))
    };
    let mut seen = Vec::new();
    let mut expect = |outcome: Result<v1::InitialAdapter, Status>, code: ErrorCode, text: &str| {
        let (got, message) = words(outcome.unwrap_err());
        assert!(got == code && message.contains(text), "{got:?} {message}");
        seen.push(message);
    };
    let invalid = ErrorCode::InvalidArgument;
    expect(send(&operator, header("nobody", &good), &good).await, ErrorCode::NotFound, "no base model `nobody`");
    expect(send(&operator, header("wide", &good), &good).await, invalid, "[16, 16], but in base model `wide`");
    expect(send(&operator, header("tiny", &good), &good[1..]).await, invalid, "bytes came");
    let short = v1::InitialHeader { total_bytes: 100, ..header("tiny", &good) };
    expect(send(&operator, short, &good).await, invalid, "100 were announced");
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    expect(send(&operator, header("tiny", &good), &damaged).await, ErrorCode::Aborted, "send the file again");
    expect(upload(&operator, b"no tensors at all").await, invalid, "not a sound safetensors file");
    expect(upload(&operator, &adapter(2, || f32::NAN)).await, invalid, "holds NaN");
    let stray = file(&entries(&[("layer.0.key.lora_A", &[4, 16]), ("layer.0.key.lora_B", &[16, 4])]), random(1));
    expect(upload(&operator, &stray).await, invalid, "changes `layer.0.key`, but base model `tiny` has no");
    let large = v1::InitialHeader { total_bytes: 20_001, ..header("tiny", &good) };
    expect(send(&operator, large, &good).await, ErrorCode::ResourceExhausted, "max_staging_bytes");
    let no_header = v1::InitialMessage { part: Some(AdapterPart::Data(good.clone().into())) };
    let mut api = operator.api.clone();
    let outcome = api.upload_initial(tokio_stream::iter([no_header])).await.map(tonic::Response::into_inner);
    expect(outcome, invalid, "the first message must be the header");
    assert!(files(&coordinator.dir.join("staging/initials")).is_empty(), "{seen:#?}");

    let refused = async |run_file: String, digest: &str| words(create(&operator, run_file, digest).await.unwrap_err());
    let (code, message) = refused(run_file("fedit", 1), &Digest::of(&good).to_string()).await;
    assert!(code == ErrorCode::NotFound && message.contains("upload it again"), "{message}");
    let (code, message) = refused(run_file("fedit", 1), "blake3:00").await;
    assert!(code == invalid && message.contains("not valid"), "{message}");
    // It fits the base, and another base or task not.
    let three = adapter(3, random(5));
    upload(&operator, &three).await.unwrap();
    let digest = Digest::of(&three).to_string();
    let (code, message) = refused(run_file("fedit", 1), &digest).await;
    assert!(code == invalid && message.contains("its head has 3 labels, the run's task 2"), "{message}");
    let (_, message) = refused(run_file("fedit", 1).replace("\"tiny\"", "\"wide\""), &digest).await;
    assert!(message.contains("in base model `wide`"), "{message}");
    let runs = operator.api.clone().list_runs(v1::ListRunsRequest {}).await.unwrap().into_inner().runs;
    assert!(runs.is_empty());
    let blobs = coordinator.dir.join("blobs");
    assert!(files(&blobs).iter().all(|run| files(run).is_empty()), "a refused run leaves no blob");
}
