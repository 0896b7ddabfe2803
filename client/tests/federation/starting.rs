//! A run that starts from what another run, of another method, has exported.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rondo_coordinator::config::Config;
use rondo_methods::export::peft;
use rondo_methods::start_adapter::convert;
use rondo_methods::tensor::parts_of;
use rondo_methods::{AdapterState, ExportInfo, Job, Registry, TensorFile};
use rondo_proto::run_file::RunFile;
use rondo_proto::v1;

use crate::client::{Client, model_dir};
use crate::coordinator::{Coordinator, End, Shifted};

const NAMES: [&str; 3] = ["books", "films", "meals"];

fn run_file(method: &str, rounds: u32, targets: &str) -> String {
    format!(
        r#"
        name = "sentiment"
        base = {{ model = "tiny" }}
        task = {{ kind = "classification", dataset = "reviews", labels = ["negative", "positive"], max_tokens = 16 }}
        method = {{ id = "{method}", rank = 2, targets = [{targets}] }}
        train = {{ local_steps = 60, batch = 8, lr = 5e-3 }}
        rounds = {{ count = {rounds}, cohort = 3, quorum = 3, deadline_s = 120 }}
        "#
    )
}

/// A completed run's job, state and rounds.
async fn outcome(coordinator: &Coordinator, run: &str, dir: &Path) -> (Job, AdapterState, Vec<v1::RoundRecord>) {
    coordinator.until(run, "the run ends", |run| run.outcome == "completed").await;
    std::fs::create_dir_all(dir).unwrap();
    let (reply, [initial, frozen, published]) = coordinator.adapter(run, dir).await;
    let file = RunFile::parse(&reply.run_file).unwrap();
    let mut job = Job::new(&Registry::builtin(), &file, reply.base.as_ref().unwrap()).unwrap();
    if let Some(initial) = initial.first() {
        job = job.starting_from(initial).unwrap();
    }
    let round = reply.state.unwrap().round;
    let state = job.state(round, "export", 0, frozen.first().map(|path| path.as_path()), &published).unwrap();
    (job, state, coordinator.rounds(run).await)
}

type Measured = BTreeMap<String, (f64, f64)>;

/// What clients measured, by client.
fn measured(record: &v1::RoundRecord, of: fn(&v1::Participant) -> Option<&v1::Evaluation>) -> Measured {
    let parts = record.participants.iter();
    parts.map(|part| (part.client.clone(), of(part).map(|found| (found.loss, found.accuracy)).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_where_the_export_of_another_method_stands() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut coordinator = Coordinator::new(&path("data"), Config::default(), Arc::<Shifted>::default());
    let described = rondo_base::describe(&model_dir(), "tiny").unwrap();
    let mut clients = Vec::new();
    for name in NAMES {
        clients.push(Client::join(&coordinator, dir.path(), name).await);
    }
    for name in NAMES {
        coordinator.until_seen(name).await;
    }
    let first = coordinator.create_run(described.clone(), run_file("flora", 2, r#""query", "value""#)).await;
    let (job, state, rounds) = outcome(&coordinator, &first, &path("first")).await;
    let exported = measured(&rounds[1], |part| part.after.as_ref());
    let bare = measured(&rounds[0], |part| part.before.as_ref());
    assert!(NAMES.iter().all(|name| exported[*name].0 < bare[*name].0 - 0.05), "{bare:?} {exported:?}: it learnt");
    job.export_peft(&state, &path("peft"), &ExportInfo::default()).unwrap();
    let start: BTreeMap<String, _> =
        peft::load(&path("peft")).unwrap().targets.into_iter().map(|target| (target.name.clone(), target)).collect();

    // Other layers on purpose: `query` is changed by the
    // adapter alone, `output.dense` by the run alone.
    let targets = r#""value", "output.dense""#;
    for method in ["ffa-lora", "fed-sb"] {
        let text = run_file(method, 1, targets);
        let file = RunFile::parse(&text).unwrap();
        let initial = path(&format!("{method}.safetensors"));
        convert(&path("peft"), &described, &file.task, &initial).unwrap();
        let run = coordinator.create_run_from(described.clone(), &initial, text).await;
        if method == "ffa-lora" {
            // In the middle, and it is all the same.
            coordinator.until(&run, "training", |run| run.phase == "training").await;
            coordinator.stop(End::Abrupt);
            coordinator.start();
        }
        let (job, state, rounds) = outcome(&coordinator, &run, &path(method)).await;
        let trained = rounds.last().unwrap();
        let before = measured(trained, |part| part.before.as_ref());
        for name in NAMES.iter().filter(|_| method == "ffa-lora") {
            let ((loss, accuracy), (was, hit)) = (before[*name], exported[*name]);
            assert!((loss - was).abs() < 1e-5 && accuracy == hit, "{name}: {loss} was {was} in the first run");
        }
        let after = measured(trained, |part| part.after.as_ref());
        let sum = |all: &Measured| all.values().map(|(loss, _)| loss).sum::<f64>();
        assert!(sum(&after) < sum(&before), "{method}: {before:?} {after:?}");

        let merged = path(&format!("{method}-merged"));
        job.export_merged(&state, &model_dir(), &merged, &ExportInfo::default()).unwrap();
        let [old, new] = [model_dir(), merged].map(|dir| TensorFile::open(&dir.join("model.safetensors")).unwrap());
        let mut by_start = 0;
        let mut by_run = 0;
        for layer in job.layers() {
            let name = old.entries().into_iter().map(|entry| entry.name);
            let name = name.into_iter().find(|name| name.ends_with(&format!("{}.weight", layer.name))).unwrap();
            let mut expected = old.read(&name).unwrap().to_matrix();
            if let Some(target) = start.get(&layer.name) {
                expected.add_scaled(1.0, &target.dense());
                by_start += 1;
            }
            if let Some(index) = job.targets().iter().position(|target| target == layer) {
                let own = job.delta(index, state.instance()).dense(&parts_of(&state.tensors, &layer.name)).unwrap();
                assert!(own.norm() > 1e-3, "{method}: {} was trained", layer.name);
                expected.add_scaled(1.0, &own);
                by_run += 1;
            }
            let mut off = new.read(&name).unwrap().to_matrix();
            off.add_scaled(-1.0, &expected);
            assert!(off.norm() < 1e-5 * expected.norm(), "{method}: {} is off by {}", layer.name, off.norm());
        }
        assert_eq!((by_start, by_run), (start.len(), job.targets().len()));
    }
    assert!(clients.iter_mut().all(Client::is_running));
}
