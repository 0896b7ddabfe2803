//! Rounds that are compared, with real files and a coordinator that dies: one client measures, a
//! worse round is taken back with the server optimiser's state, and the best one is handed out.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rondo_methods::{AggregateInput, Contribution, Kind};
use rondo_proto::error::ErrorCode;
use rondo_proto::{Digest, v1};
use rondo_wire::status::code_of;

use crate::coordinator::{Coordinator, Operator, initialise};
use crate::fake_client::{FakeClient, work_until_ended};
use crate::tensors::{base, job, run_file};

/// What the judge measures after each round: the second is the best, and the third is taken back.
fn loss(round: u32) -> f64 {
    [1.0, 0.5, 2.0, 0.52][round as usize - 1]
}

struct Scene {
    coordinator: Coordinator,
    operator: Operator,
    run: String,
    run_file: String,
    /// Three that train, and the judge.
    clients: Vec<FakeClient>,
}

async fn scene(dir: &Path, method: &str) -> Scene {
    let data = dir.join("data");
    initialise(&data);
    let coordinator = Coordinator::start(&data);
    let operator = coordinator.operator();
    let mut clients = Vec::new();
    for name in ["movies", "news", "tweets", "judge"] {
        clients.push(FakeClient::join(&coordinator, dir, name).await);
    }
    clients[3].datasets = vec!["public".into()];
    clients[3].loss = loss;
    let server = if method == "flora" { "" } else { "[server]\noptimiser = \"fed-adam\"\n" };
    let run_file = format!(
        "{}keep = \"best\"\nrollback = 0.2\n[evaluation]\nclient = \"judge\"\ndataset = \"public\"\n{server}",
        run_file(method, 4)
    );
    let run = operator.create_run(run_file.clone()).await.run;
    Scene { coordinator, operator, run, run_file, clients }
}

impl Scene {
    /// The first so many clients work until the run is where it should be.
    async fn work(&mut self, clients: usize, so: impl Fn(&v1::RunSummary) -> bool) -> v1::RunSummary {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let summary = self.operator.run(&self.run).await;
            if so(&summary) {
                return summary;
            }
            assert!(Instant::now() < until, "{summary:#?}");
            for client in &mut self.clients[..clients] {
                client.step().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn restart(self) -> Self {
        let Self { coordinator, run, run_file, mut clients, .. } = self;
        let dir = coordinator.dir.clone();
        coordinator.kill();
        let coordinator = Coordinator::start(&dir);
        clients.iter_mut().for_each(|client| client.reconnect(coordinator.address));
        let operator = coordinator.operator();
        Self { coordinator, operator, run, run_file, clients }
    }

    fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.parse::<Digest>().unwrap().hex();
        self.coordinator.dir.join("blobs").join(&self.run).join(hex)
    }

    async fn adapter(&self, round: Option<u32>) -> v1::AdapterState {
        let request = v1::GetAdapterRequest { run: self.run.clone(), round };
        self.operator.api.clone().get_adapter(request).await.unwrap().into_inner().state.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_is_taken_back_across_restarts_with_the_state_of_the_server_optimiser() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = scene(dir.path(), "fedit").await;
    // The third adapter is out and nobody has measured it: the coordinator dies.
    let is_out = |round| move |run: &v1::RunSummary| run.round == round && run.phase == "publishing";
    scene.work(4, |run| run.round == 3 && run.phase != "recruiting").await;
    scene.work(3, is_out(3)).await;
    let mut scene = scene.restart();
    assert_eq!(scene.operator.run(&scene.run).await.phase, "publishing");
    scene.work(4, |run| run.round == 4).await;

    let (second, third) = (scene.operator.round(&scene.run, 2).await, scene.operator.round(&scene.run, 3).await);
    assert_eq!((third.rolled_back_to, third.best_round, third.held_out_loss), (Some(2), Some(2), Some(2.0)));
    assert_eq!(third.measurement.as_ref().unwrap().client, "judge");
    let servers = [&second, &third].map(|round| round.server_digest.clone());
    assert!(servers[0] != servers[1] && servers.iter().all(|digest| !digest.is_empty()));
    assert!(scene.blob(&servers[0]).exists(), "the next aggregation starts from it");

    // The coordinator dies once more; the fourth round is made from what the second left.
    let mut scene = scene.restart();
    assert!(scene.blob(&servers[0]).exists());
    assert!(!scene.blob(&servers[1]).exists(), "nobody needs the state that was taken back");
    let refused = scene.clients[0].download(&scene.run.clone(), &servers[0], 0).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::PermissionDenied);
    let kept = dir.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    std::fs::copy(scene.blob(&servers[0]), kept.join("server")).unwrap();
    scene.work(3, is_out(4)).await;
    let fourth = scene.operator.round(&scene.run, 4).await;
    let expected = made_by_hand(&scene, &fourth, scene.blob(&second.global_digest), kept.join("server"));
    assert_eq!((fourth.global_digest.clone(), fourth.server_digest.clone()), expected);

    let ended = work_until_ended(&mut scene.clients, &scene.operator, &scene.run).await;
    assert_eq!((ended.outcome.as_str(), ended.best_round, ended.best_loss), ("completed", Some(2), Some(0.5)));
    // The run hands out its best round, every round can still be had, and the optimiser's states
    // are gone.
    assert_eq!(scene.adapter(None).await.published[0].digest, second.global_digest);
    assert_eq!(scene.adapter(Some(3)).await.published[0].digest, third.global_digest);
    assert_eq!(ended.adapter.unwrap().round, 2);
    for record in [&second, &fourth] {
        assert!(scene.blob(&record.global_digest).exists());
        let until = Instant::now() + Duration::from_secs(10);
        while scene.blob(&record.server_digest).exists() {
            assert!(Instant::now() < until, "a state of the optimiser outlives its run");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The digests of what `rondo-methods` makes of a round's updates, from given files.
fn made_by_hand(scene: &Scene, record: &v1::RoundRecord, global: PathBuf, server: PathBuf) -> (String, String) {
    let job = job(&scene.run_file);
    let out = tempfile::tempdir().unwrap();
    let updates = record.participants.iter().map(|part| {
        let client = scene.clients.iter().find(|client| client.identity.name == part.client).unwrap();
        let rank = part.rank;
        let assignment = v1::Assignment {
            run_file: scene.run_file.clone(),
            base: Some(base()),
            round: record.round,
            rank,
            ..Default::default()
        };
        let path = out.path().join(&part.client);
        std::fs::write(&path, client.update(&assignment)).unwrap();
        Contribution { client: part.client.clone(), weight: part.weight, rank: rank as usize, path }
    });
    let input = AggregateInput {
        kind: Kind::Train,
        round: record.round,
        updates: updates.collect(),
        frozen: None,
        published: vec![global],
        server: job.server(),
        server_state: Some(server),
        out_dir: out.path(),
        progress: &|_, _| {},
    };
    let made = job.aggregate(input).unwrap();
    let digest = |path: &Path| Digest::of_file(path).unwrap().to_string();
    (digest(&made.global), digest(&made.server_state.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_was_taken_back_is_not_part_of_the_next_base() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = scene(dir.path(), "flora").await;
    scene.work(4, |run| run.round == 4 && run.phase == "training").await;
    let mut scene = scene.restart();
    let stood = scene.adapter(Some(2)).await;
    assert_eq!(scene.adapter(None).await, stood);
    assert_eq!(stood.published.len(), 2);
    let assignment = scene.clients[0].assignment().await;
    assert_eq!(assignment.state.as_ref(), Some(&stood));
    // An update made on that base is taken, and its stack is the third of the base.
    scene.clients[0].work(&assignment).await.unwrap();
    let ended = work_until_ended(&mut scene.clients, &scene.operator, &scene.run).await;
    assert_eq!(ended.outcome, "completed");
    let fourth = scene.adapter(Some(4)).await;
    assert_eq!(fourth.published.iter().map(|entry| entry.round).collect::<Vec<_>>(), [1, 2, 4]);
    // What a client would do with it: the files' own numbers fit the order.
    let paths: Vec<PathBuf> = fourth.published.iter().map(|entry| scene.blob(&entry.digest)).collect();
    let job = job(&scene.run_file);
    let state = job.state(5, "movies", 4, None, &paths).unwrap();
    assert_eq!(state.merged.len(), 3 * job.targets().len());
    assert_eq!(scene.adapter(None).await, stood, "the best round is handed out");
}
