//! A tiny base model, runs on it, and a federation of one client without a coordinator.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rondo_data::Dataset;
use rondo_methods::file::{self, TensorFile};
use rondo_methods::{AdapterState, AggregateInput, Contribution, Instance, Job, Kind, Registry, Tensor, TensorSet};
use rondo_proto::run_file::{Dtype, Pooling, RunFile};
use rondo_proto::v1;
use rondo_trainer::LibtorchTrainer;
use rondo_trainer::batch::Encoded;
use rondo_trainer::device::DeviceChoice;
use rondo_trainer::models::{self, LoadOptions, Transformer};
use rondo_trainer_api::work::{LocalUpdate, Progress, Protection, Trainer, Work};
use tch::Device;
use tempfile::TempDir;

use crate::questions;

/// A file among the goldens.
pub(crate) fn golden(name: &str) -> PathBuf {
    // The client's tests of its offline commands use this file too.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/goldens").join(name)
}

/// What transformers made of the tiny language model, bare and adapted (goldens/make_tasks.py).
pub(crate) fn facts() -> serde_json::Value {
    serde_json::from_slice(&fs::read(golden("tasks.json")).unwrap()).unwrap()
}

/// Tensors of a golden file.
pub(crate) fn golden_tensors(name: &str) -> TensorSet {
    TensorFile::open(&golden(name)).unwrap().read_all(|_| true).unwrap()
}

/// The tiny model's folder.
pub(crate) fn tiny() -> PathBuf {
    golden("tiny-bert")
}

/// The demo model's folder, which `cargo xtask setup` fetches.
pub(crate) fn minilm() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.rondo/models/minilm-l6");
    assert!(dir.join("config.json").exists(), "{} is not there; run `cargo xtask setup`", dir.display());
    dir
}

/// An encoder on the CPU in f32.
pub(crate) fn encoder(dir: &Path) -> Box<dyn Transformer> {
    models::load(dir, LoadOptions::new(Device::Cpu, tch::Kind::Float)).unwrap()
}

/// The golden texts' token ids (`ids`), split where a `[CLS]` starts a text.
pub(crate) fn golden_ids(tensors: &TensorSet, cls: f32) -> Encoded {
    let ids = &tensors["ids"].data;
    let starts: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == cls).collect();
    let mut encoded = Encoded::new();
    for (number, &start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(ids.len());
        encoded.push(ids[start..end].iter().map(|&id| id as i64));
    }
    encoded
}

/// The golden texts' token ids (`ids`), split by their `lengths`.
pub(crate) fn golden_texts(tensors: &TensorSet) -> Encoded {
    let mut ids = tensors["ids"].data.iter().map(|&id| id as i64);
    let mut encoded = Encoded::new();
    for &length in &tensors["lengths"].data {
        encoded.push(ids.by_ref().take(length as usize));
    }
    encoded
}

/// Numbers of a libtorch tensor.
pub(crate) fn plain(tensor: &tch::Tensor) -> Tensor {
    let shape = tensor.size().iter().map(|&n| n as usize).collect();
    Tensor { shape, data: Vec::<f32>::try_from(&tensor.detach().contiguous().view(-1)).unwrap() }
}

/// A copy of the model in `from` with its tensors and its config.json changed, as far as loading it
/// needs.
pub(crate) fn altered(
    from: &Path,
    dir: &Path,
    change: impl Fn(&mut TensorSet),
    config: impl Fn(&mut serde_json::Value),
) {
    let mut tensors = TensorFile::open(&from.join("model.safetensors")).unwrap().read_all(|_| true).unwrap();
    change(&mut tensors);
    file::write(&dir.join("model.safetensors"), &tensors, Dtype::F32, &Default::default()).unwrap();
    let mut settings = serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    config(&mut settings);
    fs::write(dir.join("config.json"), settings.to_string()).unwrap();
}

/// Why an altered copy is refused; empty when it loads.
pub(crate) fn refusal(from: &Path, change: impl Fn(&mut TensorSet), config: impl Fn(&mut serde_json::Value)) -> String {
    let dir = tempfile::tempdir().unwrap();
    altered(from, dir.path(), change, config);
    models::load(dir.path(), LoadOptions::new(Device::Cpu, tch::Kind::Float))
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default()
}

/// Labels of the tiny task.
pub(crate) fn labels() -> Vec<String> {
    vec!["negative".to_owned(), "positive".to_owned()]
}

/// Sentences whose one telling word says the label.
pub(crate) fn separable() -> Dataset {
    let (bad, good) = (["bad", "awful", "poor", "ugly"], ["good", "great", "fine", "lovely"]);
    let things = ["film", "movie", "book", "phone", "food", "service"];
    let frames = ["the {t} was {w}", "a {w} {t} !", "i was with the {t} for a day and it is so {w} .", "{w} {t}"];
    let mut rows = Vec::new();
    for (label, words) in [bad, good].iter().enumerate() {
        for word in words {
            for thing in things {
                for frame in frames {
                    rows.push((frame.replace("{t}", thing).replace("{w}", word), label as u32));
                }
            }
        }
    }
    Dataset::of("tiny", &labels(), rows, 0.25)
}

/// A run on the tiny model.
#[derive(Clone)]
pub(crate) struct TestRun {
    pub(crate) run: Arc<RunFile>,
    pub(crate) base: Arc<v1::BaseModel>,
    pub(crate) job: Job,
    pub(crate) data: Arc<Dataset>,
}

impl TestRun {
    /// `method` is the `[method]` table without targets; they are query, value and the inner dense
    /// layer.
    pub(crate) fn new(method: &str) -> Self {
        Self::with(method, &["query", "value", "intermediate.dense"], 5e-3, 8)
    }

    pub(crate) fn with(method: &str, targets: &[&str], lr: f64, local_steps: u32) -> Self {
        let text = format!(
            "name = \"tiny\"\nbase = {{ model = \"tiny\" }}\n\
             [task]\nkind = \"classification\"\ndataset = \"tiny\"\nlabels = [\"negative\", \"positive\"]\nmax_tokens = 24\n\
             [method]\n{method}\ntargets = {targets:?}\n\
             [train]\nlocal_steps = {local_steps}\nbatch = 8\nlr = {lr:?}\nseed = 5\n\
             [rounds]\ncount = 2\ncohort = 1\nquorum = 1\n"
        );
        let run = RunFile::parse(&text).unwrap();
        let base = rondo_base::describe(&tiny(), "tiny").unwrap();
        let mut registry = Registry::builtin();
        questions::register(&mut registry);
        let job = Job::new(&registry, &run, &base).unwrap();
        Self { run: Arc::new(run), base: Arc::new(base), job, data: Arc::new(separable()) }
    }

    /// One run of each built-in method, and of two that ask what no built-in one does.
    pub(crate) fn of_every_method() -> Vec<Self> {
        let mut methods: Vec<String> = Registry::builtin().iter().map(|method| method.id().to_owned()).collect();
        methods.extend(["tiled".to_owned(), "woven".to_owned()]);
        methods.iter().map(|id| Self::new(&format!("id = \"{id}\"\nrank = 4"))).collect()
    }

    pub(crate) fn work(&self, round: u32, state: AdapterState) -> Work {
        Work {
            job: self.job.clone(),
            run: Arc::clone(&self.run),
            base: Arc::clone(&self.base),
            model_dir: tiny(),
            data: Arc::clone(&self.data),
            client: "solo".to_owned(),
            round,
            rank: self.job.rank(),
            state,
            protection: Protection::None,
            evaluate_before: false,
            max_eval_examples: None,
        }
    }

    /// The statistic of the warm-up.
    pub(crate) fn statistic(&self, trainer: &mut LibtorchTrainer) -> LocalUpdate {
        let state = self.job.warm_up_state(self.job.rank()).unwrap();
        trainer.warm_up(&self.work(0, state), &mut go_on).unwrap()
    }
}

/// A progress callback that never stops anything.
pub(crate) fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A trainer on one CPU thread.
pub(crate) fn trainer() -> LibtorchTrainer {
    LibtorchTrainer::new(DeviceChoice::Cpu, Some(1)).unwrap()
}

/// What a coordinator keeps of a run with one client.
pub(crate) struct SingleClient {
    dir: TempDir,
    pub(crate) run: TestRun,
    frozen: Option<PathBuf>,
    published: Vec<PathBuf>,
}

impl SingleClient {
    /// A run after its warm-up, if it has one.
    pub(crate) fn start(run: TestRun, trainer: &mut LibtorchTrainer) -> Self {
        let mut solo = Self { dir: tempfile::tempdir().unwrap(), run, frozen: None, published: Vec::new() };
        if solo.run.job.needs_warm_up() {
            let update = solo.run.statistic(trainer);
            solo.publish(0, Kind::WarmUp, &update.tensors);
        }
        solo
    }

    pub(crate) fn state(&self, round: u32) -> AdapterState {
        let job = &self.run.job;
        job.state(round, "solo", job.rank(), self.frozen.as_deref(), &self.published).unwrap()
    }

    pub(crate) fn work(&self, round: u32) -> Work {
        self.run.work(round, self.state(round))
    }

    pub(crate) fn publish(&mut self, round: u32, kind: Kind, tensors: &TensorSet) {
        let (job, out_dir) = (&self.run.job, self.dir.path().join(round.to_string()));
        std::fs::create_dir_all(&out_dir).unwrap();
        let path = out_dir.join("update.safetensors");
        job.write_update(kind, Instance::in_round(round).of_client("solo"), tensors, &path).unwrap();
        let updates = vec![Contribution { client: "solo".into(), weight: 1.0, rank: job.rank(), path }];
        let (frozen, published) = (self.frozen.clone(), self.published.clone());
        let input = AggregateInput {
            kind,
            round,
            updates,
            frozen,
            published,
            server: None,
            server_state: None,
            out_dir: &out_dir,
            progress: &|_, _| {},
        };
        let output = job.aggregate(input).unwrap();
        self.published.push(output.global);
        self.frozen = output.frozen.or(self.frozen.take());
    }
}

/// Replaces every trained tensor by small numbers that depend on its name, so that no factor is
/// zero.
pub(crate) fn stir(job: &Job, state: &mut AdapterState) {
    for named in job.layout(state.instance()) {
        if named.spec.role == rondo_methods::Role::Trained {
            let seed = named.name.bytes().fold(7_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
            let tensor = state.tensors.get_mut(&named.name).unwrap();
            for (index, value) in tensor.data.iter_mut().enumerate() {
                let bits = (seed ^ (index as u32).wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b) >> 8;
                *value = (bits as f32 / 16_777_216.0 - 0.5) * 0.4;
            }
        }
    }
}

/// Largest distance between numbers at the same place.
pub(crate) fn distance(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// `left` equals `right` to `tolerance` times the largest number of `right`.
pub(crate) fn assert_close(what: &str, left: &Tensor, right: &Tensor, tolerance: f32) {
    assert_eq!(left.shape, right.shape, "{what}");
    let largest = right.data.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let off = distance(&left.data, &right.data);
    assert!(largest > 0.0 && off <= tolerance * largest, "{what}: off by {off}, largest number {largest}");
}

/// A head of the golden file.
pub(crate) fn golden_head(goldens: &TensorSet) -> TensorSet {
    BTreeMap::from(["head.weight", "head.bias"].map(|name| (name.to_owned(), goldens[name].clone())))
}

/// Both poolings with their names in the golden file.
pub(crate) const POOLINGS: [(&str, Pooling); 2] = [("mean", Pooling::Mean), ("cls", Pooling::Cls)];

/// Mean cross entropy of logits `[texts, labels]`, as torch has it.
pub(crate) fn mean_loss(logits: &tch::Tensor, labels: &[i64]) -> tch::Tensor {
    logits.cross_entropy_for_logits(&tch::Tensor::from_slice(labels))
}
