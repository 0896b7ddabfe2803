//! A data owner's machine: a folder, a configuration, a base model,
//! a data set, and a trainer that only pretends.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rondo_client::api::Api;
use rondo_client::config::Config;
use rondo_client::daemon::{Daemon, DaemonSetup};
use rondo_client::disk::{Disk, LocalDisk};
use rondo_client::home::Home;
use rondo_methods::{Job, Kind, Registry, Tensor};
use rondo_proto::run_file::RunFile;
use rondo_proto::v1::{self, poll_reply::Next};
use rondo_trainer_api::work::{LocalUpdate, OnProgress, Progress, Trainer, Work, WorkError};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::coordinator::Coordinator;

/// Adds one to every number it is given; steps take 5 ms.
#[derive(Default)]
pub struct Pretender {
    /// Trainings and warm-ups that were finished.
    pub trained: AtomicU32,
    /// Steps of every training.
    pub steps: AtomicU32,
    /// The next training panics.
    pub panics: AtomicBool,
    /// Trainings give what is no number.
    pub diverges: AtomicBool,
}

struct Handle(Arc<Pretender>);

impl Handle {
    fn steps(&self, progress: &mut OnProgress<'_>) -> Result<(), WorkError> {
        let steps = self.0.steps.load(Ordering::SeqCst);
        for step in 1..=steps {
            std::thread::sleep(Duration::from_millis(5));
            if progress(Progress { step, steps, loss: 0.5 }).is_break() {
                return Err(WorkError::Interrupted);
            }
        }
        Ok(())
    }
}

impl Trainer for Handle {
    fn warm_up(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<LocalUpdate, WorkError> {
        let mut update = self.train(work, progress)?;
        for named in work.job.upload_manifest(Kind::WarmUp, work.instance()) {
            update.tensors.entry(named.name).or_insert_with(|| Tensor::zeros(&named.shape));
        }
        Ok(update)
    }

    fn train(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<LocalUpdate, WorkError> {
        assert!(!self.0.panics.swap(false, Ordering::SeqCst), "as the test asked");
        self.steps(progress)?;
        let mut tensors = work.state.tensors.clone();
        tensors.values_mut().for_each(|tensor| tensor.data.iter_mut().for_each(|number| *number += 1.0));
        if self.0.diverges.load(Ordering::SeqCst) {
            tensors.values_mut().for_each(|tensor| tensor.data.fill(f32::NAN));
        }
        self.0.trained.fetch_add(1, Ordering::SeqCst);
        let before = work.evaluate_before.then(|| v1::Evaluation {
            loss: 1.0,
            accuracy: 0.5,
            groups: groups_of(work).unwrap_or_default(),
            ..held_out(work)
        });
        Ok(LocalUpdate { tensors, examples: work.data.train().len() as u64, train_loss: 0.25, seconds: 0.1, before })
    }

    fn evaluate(&mut self, work: &Work, progress: &mut OnProgress<'_>) -> Result<v1::Evaluation, WorkError> {
        self.steps(progress)?;
        // The sum of the state says which state came.
        let sum: f32 = work.state.tensors.values().flat_map(|tensor| &tensor.data).sum();
        Ok(v1::Evaluation {
            loss: f64::from(sum),
            accuracy: 0.75,
            groups: groups_of(work).unwrap_or_default(),
            ..held_out(work)
        })
    }
}

fn held_out(work: &Work) -> v1::Evaluation {
    v1::Evaluation { examples: work.data.held_out().len() as u64, ..Default::default() }
}

/// The held-out rows by group, where they have groups.
fn groups_of(work: &Work) -> Option<Vec<v1::GroupEvaluation>> {
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for example in work.data.held_out().all().unwrap().iter() {
        *counts.entry(example.group.as_deref()?.to_owned()).or_default() += 1;
    }
    let group = |(group, examples)| v1::GroupEvaluation { group, examples, loss: 1.0, accuracy: 0.5, tokens: 0 };
    Some(counts.into_iter().map(group).collect())
}

/// Makes a trainer.
pub type Make = fn() -> Result<Box<dyn Trainer>, WorkError>;

/// A machine and the daemon that may run on it.
pub struct Machine {
    pub dir: TempDir,
    pub coordinator: Coordinator,
    pub pretender: Arc<Pretender>,
    pub config: String,
    pub base: v1::BaseModel,
    /// The client's name.
    pub client: &'static str,
    /// Makes another trainer than the pretender.
    pub trainer: Option<Make>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

pub fn model_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/goldens/tiny-bert")
}

impl Machine {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rows: String = (0..60).map(|n| format!("text number {n}\t{}\n", ["bad", "good"][n % 2])).collect();
        fs::write(dir.path().join("reviews.tsv"), format!("text\tlabel\n{rows}")).unwrap();
        let config = format!(
            "[[model]]\npath = {:?}\n[[dataset]]\nname = \"reviews\"\npath = \"reviews.tsv\"\neval_fraction = 0.3\n\
             [poll]\ninterval_ms = 5\nheartbeat_ms = 5\n",
            model_dir()
        );
        let base = rondo_base::describe(&model_dir(), "tiny").unwrap();
        let pretender = Arc::new(Pretender::default());
        pretender.steps.store(3, Ordering::SeqCst);
        Self {
            dir,
            coordinator: Coordinator::default(),
            pretender,
            config,
            base,
            client: "movies",
            trainer: None,
            running: None,
        }
    }

    pub fn start(&mut self) {
        self.start_on(Box::new(LocalDisk));
    }

    pub fn start_on(&mut self, disk: Box<dyn Disk>) {
        self.start_with(self.coordinator.clone(), disk);
    }

    pub fn start_with<A: Api>(&mut self, api: A, disk: Box<dyn Disk>) {
        let file = self.dir.path().join("client.toml");
        fs::write(&file, &self.config).unwrap();
        let pretender = Arc::clone(&self.pretender);
        let other = self.trainer;
        let make = move || match other {
            Some(make) => make(),
            None => Ok(Box::new(Handle(Arc::clone(&pretender))) as Box<dyn Trainer>),
        };
        let parts = DaemonSetup {
            home: Home::open(self.dir.path()).unwrap(),
            config: Config::read(&file).unwrap(),
            client: self.client.to_owned(),
            api,
            registry: Registry::builtin(),
            trainer: Box::new(make),
            disk,
        };
        let daemon = Daemon::new(parts).unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(daemon.run(async {
            let _ = stopped.await;
        }));
        self.running = Some((stop, task));
    }

    /// Ends the daemon as SIGTERM does.
    pub async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap();
    }

    /// Ends the daemon where it stands: nothing more of it runs, nothing is tidied up.
    pub async fn kill(&mut self) {
        let (_stop, task) = self.running.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub fn trained(&self) -> u32 {
        self.pretender.trained.load(Ordering::SeqCst)
    }

    /// A run file of this method and rank.
    pub fn run_file(&self, method: &str, rank: usize) -> String {
        format!(
            r#"
            name = "sentiment"
            base = {{ model = "tiny", digest = "{}" }}
            task = {{ kind = "classification", dataset = "reviews", labels = ["bad", "good"], max_tokens = 16 }}
            method = {{ id = "{method}", rank = {rank}, targets = ["query", "value"] }}
            train = {{ local_steps = 3, batch = 4, lr = 1e-3 }}
            rounds = {{ count = 2, cohort = 1, quorum = 1 }}
            "#,
            self.base.digest
        )
    }

    pub fn job(&self, run_file: &str) -> Job {
        Job::new(&Registry::builtin(), &RunFile::parse(run_file).unwrap(), &self.base).unwrap()
    }

    pub fn invite(&self, run: &str, run_file: &str) {
        self.coordinator.give(Next::Invitation(v1::Invitation {
            run: run.to_owned(),
            run_file: run_file.to_owned(),
            base: Some(self.base.clone()),
            initial: None,
        }));
    }

    pub fn assignment(&self, kind: v1::WorkKind, run: &str, round: u32, run_file: &str) -> v1::Assignment {
        v1::Assignment {
            run: run.to_owned(),
            round,
            attempt: 1,
            kind: kind.into(),
            run_file: run_file.to_owned(),
            base: Some(self.base.clone()),
            ..v1::Assignment::default()
        }
    }

    pub fn train(&self, run: &str, round: u32, run_file: &str) {
        self.coordinator.give(Next::Assignment(self.assignment(v1::WorkKind::Train, run, round, run_file)));
    }

    /// Entries in the spool, as "run/round.attempt".
    pub fn spooled(&self) -> Vec<String> {
        let mut found = Vec::new();
        let spool = self.dir.path().join("spool");
        for run in fs::read_dir(&spool).unwrap().map(|run| run.unwrap().path()) {
            for entry in fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path()) {
                found.push(entry.strip_prefix(&spool).unwrap().to_string_lossy().into_owned());
            }
        }
        found.sort();
        found
    }
}
