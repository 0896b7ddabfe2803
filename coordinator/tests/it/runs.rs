//! Whole runs with three clients.

use rondo_proto::error::ErrorCode;
use rondo_proto::{Digest, v1};
use rondo_wire::status::code_of;

use crate::coordinator::{Coordinator, initialise};
use crate::fake_client::{FakeClient, work_until_ended};
use crate::tensors::{base, job, run_file};

async fn three_clients(coordinator: &Coordinator, dir: &std::path::Path) -> Vec<FakeClient> {
    let mut clients = Vec::new();
    for name in ["movies", "news", "tweets"] {
        clients.push(FakeClient::join(coordinator, dir, name).await);
    }
    clients
}

async fn whole_run(method: &str) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    initialise(&data);
    let coordinator = Coordinator::start(&data);
    let operator = coordinator.operator();
    let text = run_file(method, 2);
    let run = operator.create_run(text.clone()).await.run;
    let mut watched =
        operator.api.clone().watch_run(v1::GetRunRequest { run: run.clone() }).await.unwrap().into_inner();
    let mut clients = three_clients(&coordinator, dir.path()).await;
    let ended = work_until_ended(&mut clients, &operator, &run).await;
    assert_eq!(ended.outcome, "completed", "{ended:#?}");

    let job = job(&text);
    let rounds = operator.api.clone().list_rounds(v1::GetRunRequest { run: run.clone() }).await.unwrap().into_inner();
    assert_eq!(rounds.rounds.len(), 2 + usize::from(job.needs_warm_up()), "{method}");
    for round in &rounds.rounds {
        assert_eq!(round.participants.len(), 3);
        for part in &round.participants {
            assert_eq!(part.state, "accepted", "{part:#?}");
            let allowed = part.layout_bytes_up as f64 * 1.03 + 4096.0;
            assert!(part.bytes_up >= part.layout_bytes_up && (part.bytes_up as f64) <= allowed, "{method} {part:#?}");
            let allowed = part.layout_bytes_down as f64 * 1.03 + 2.0 * 4096.0;
            assert!(part.bytes_down >= part.layout_bytes_down, "{method} {part:#?}");
            assert!((part.bytes_down as f64) <= allowed, "{method} {part:#?}");
            assert!(part.update_norm > 0.0 && part.update_norm.is_finite());
            if round.kind == "training" {
                assert_eq!(part.after.as_ref().map(|after| after.accuracy), Some(0.75));
            }
        }
        let weights: f64 = round.participants.iter().map(|part| part.weight).sum();
        assert!((weights - 1.0).abs() < 1e-9);
    }
    let error = rounds.rounds.last().unwrap().aggregation_error.unwrap();
    match method {
        "fedit" => assert!(error > 1e-6, "{error}"),
        exact => assert!(error <= 1e-6, "{exact}: {error}"),
    }

    // What a watcher saw ends with the end, and its lines come in order, each once.
    let mut sequences = Vec::new();
    let mut last = None;
    while let Some(update) = watched.message().await.unwrap() {
        sequences.extend(update.events.iter().map(|event| event.sequence));
        last = update.summary;
    }
    assert_eq!(last.unwrap().phase, "ended");
    assert!(sequences.windows(2).all(|pair| pair[0] < pair[1]), "{sequences:?}");

    // The operator fetches the adapter; a client whose run has ended may not.
    let adapter = operator.api.clone().get_adapter(v1::GetAdapterRequest { run: run.clone(), round: None }).await;
    let adapter = adapter.unwrap().into_inner();
    assert_eq!((adapter.method.as_str(), adapter.rounds.len()), (method, rounds.rounds.len()));
    let state = adapter.state.unwrap();
    let published = state.published.last().unwrap().clone();
    let request = v1::DownloadRequest { run: run.clone(), digest: published.digest.clone(), offset: 0 };
    let mut chunks = operator.api.clone().fetch_blob(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        bytes.extend_from_slice(&chunk.data);
    }
    assert_eq!(Digest::of(&bytes).to_string(), published.digest);
    assert_eq!(bytes.len() as u64, published.bytes);
    let refused = clients[0].download(&run, &published.digest, 0).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::PermissionDenied);
    let missing = operator.api.clone().get_adapter(v1::GetAdapterRequest { run: run.clone(), round: Some(9) }).await;
    assert_eq!(code_of(&missing.unwrap_err()), ErrorCode::NotFound);

    // Updates are gone, what was published stays, nothing is left in staging.
    let kept: Vec<_> = std::fs::read_dir(data.join("blobs").join(&run)).unwrap().collect();
    let needed = state.published.len() + usize::from(!state.frozen_digest.is_empty());
    assert!(kept.len() >= needed && kept.len() <= needed + rounds.rounds.len(), "{} blobs", kept.len());
    assert_eq!(std::fs::read_dir(data.join("staging/uploads")).unwrap().count(), 0);
    coordinator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn fedit() {
    whole_run("fedit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ffa_lora() {
    whole_run("ffa-lora").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flora() {
    whole_run("flora").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fed_sb() {
    whole_run("fed-sb").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_runs_are_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    initialise(dir.path());
    let coordinator = Coordinator::start(dir.path());
    let mut api = coordinator.operator().api;
    let mut refused = async |text: String| {
        let status = api.create_run(v1::CreateRunRequest { run_file: text, ..Default::default() }).await.unwrap_err();
        (code_of(&status), status.message().to_owned())
    };
    let (code, message) = refused(run_file("fedit", 1)).await;
    assert_eq!(code, ErrorCode::NotFound);
    assert!(message.contains("`tiny` is not registered"), "{message}");

    coordinator.operator().api.add_base(base()).await.unwrap();
    let other = Digest::of(b"another");
    let text = run_file("fedit", 1).replace("model = \"tiny\"", &format!("model = \"tiny\", digest = \"{other}\""));
    let (_, message) = refused(text).await;
    assert!(message.contains(&other.to_string()) && message.contains(&base().digest), "names both: {message}");
    let (_, message) = refused(run_file("fedit", 1).replace("cohort", "cohrt")).await;
    assert!(message.contains("cohort"), "names the nearest key: {message}");
    let (_, message) = refused(run_file("fed-it", 1)).await;
    assert!(message.contains("fedit"), "{message}");
    let (_, message) = refused(run_file("fedit", 1).replace("rank = 4", "rank = 17")).await;
    assert!(message.contains("17") && message.contains("16"), "{message}");
    let (_, message) = refused(run_file("fedit", 1).replace("\"query\"", "\"queri\"")).await;
    assert!(message.contains("layer.0.query") || message.contains("query"), "{message}");
    assert!(coordinator.operator().api.list_runs(v1::ListRunsRequest {}).await.unwrap().into_inner().runs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_paused_resumed_and_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    initialise(&data);
    let coordinator = Coordinator::start(&data);
    let operator = coordinator.operator();
    let run = operator.create_run(run_file("ffa-lora", 2)).await.run;
    let mut clients = three_clients(&coordinator, dir.path()).await;
    let request = v1::GetRunRequest { run: run.clone() };
    assert!(operator.api.clone().pause_run(request.clone()).await.unwrap().into_inner().paused);
    for client in &mut clients {
        assert!(matches!(client.poll().await.unwrap(), v1::poll_reply::Next::Wait(_)));
    }
    assert!(!operator.api.clone().resume_run(request.clone()).await.unwrap().into_inner().paused);
    let assignment = {
        for client in &mut clients[1..] {
            client.step().await.unwrap();
        }
        clients[0].assignment().await
    };
    let bytes = clients[0].update(&assignment);
    assert!(clients[0].upload(&assignment, &bytes).await.unwrap().accepted);
    let cancelled = operator.api.clone().cancel_run(request).await.unwrap().into_inner();
    assert_eq!((cancelled.phase.as_str(), cancelled.outcome.as_str()), ("ended", "cancelled"));
    let late = clients[1].assignment_or_wait().await;
    assert!(late.is_none(), "{late:?}");
    // The update of the cancelled round is dropped.
    let folder = data.join("blobs").join(&run);
    for _ in 0..100 {
        if std::fs::read_dir(&folder).map_or(0, |files| files.count()) == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the cancelled run's update is still there");
}
