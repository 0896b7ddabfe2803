//! What the benches measure: the example runs on the shapes of the demo's
//! encoder, with drawn numbers in place of training.

use std::path::{Path, PathBuf};

use std::sync::Arc;

use rondo_data::Dataset;
use rondo_methods::{
    AdapterState, AggregateInput, AggregateOutput, Contribution, Instance, Job, Kind, MethodError, Registry, Tensor,
    TensorSet,
};
use rondo_proto::manifest::TensorEntry;
use rondo_proto::run_file::{RunFile, RunFileError};
use rondo_proto::v1;
use rondo_trainer::train::local_simulation::CLIENT;
use rondo_trainer_api::work::{Protection, Work};

/// The methods with a run file in `examples/runs`.
pub const METHODS: [&str; 4] = ["fed-sb", "ffa-lora", "flora", "fedit"];

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// The demo's model folder, where set-up puts it.
pub fn model_dir() -> PathBuf {
    workspace().join(".rondo/models/minilm-l6")
}

/// Why an example cannot be used.
#[derive(Debug)]
pub enum ExampleError {
    /// It cannot be read.
    Read(PathBuf, std::io::Error),
    /// It is no run file.
    Run(PathBuf, RunFileError),
}

/// The run file of a method in `examples/runs`.
///
/// # Errors
/// The file cannot be read, or it is no run file.
pub fn example_run(method: &str) -> Result<RunFile, ExampleError> {
    let path = workspace().join("examples/runs").join(method).with_extension("toml");
    let text = std::fs::read_to_string(&path).map_err(|error| ExampleError::Read(path.clone(), error))?;
    RunFile::parse(&text).map_err(|error| ExampleError::Run(path, error))
}

/// A round of a run on the demo's encoder, for one client with
/// these texts and labels; it starts from `state`.
pub fn work(
    run: RunFile,
    rows: impl IntoIterator<Item = (String, u32)>,
    state: impl FnOnce(&Job) -> AdapterState,
) -> Work {
    let dir = model_dir();
    let base = rondo_base::describe(&dir, "minilm-l6").expect("`cargo xtask setup` fetches the model");
    let job = Job::new(&Registry::builtin(), &run, &base).expect("the example fits the model");
    let state = state(&job);
    Work {
        rank: job.rank(),
        job,
        data: Arc::new(Dataset::of("reviews", &run.task.labels, rows, 0.0)),
        run: Arc::new(run),
        base: Arc::new(base),
        model_dir: dir,
        // The name that the draws of a run without a coordinator go by.
        client: CLIENT.to_owned(),
        round: state.round,
        state,
        protection: Protection::None,
        evaluate_before: false,
        max_eval_examples: None,
    }
}

/// A text that fills all tokens, so that a step's time does not hang on the draw of its batch.
pub fn long_text(number: u32) -> String {
    format!("{number} {}", "a rather long and winding review of it ".repeat(10))
}

/// The shapes of the demo's encoder (six blocks of width 384), without its weights.
pub fn encoder_shapes() -> v1::BaseModel {
    let block = |number: usize| {
        [
            ("attention.self.query", 384, 384),
            ("attention.self.key", 384, 384),
            ("attention.self.value", 384, 384),
            ("attention.output.dense", 384, 384),
            ("intermediate.dense", 1536, 384),
            ("output.dense", 384, 1536),
        ]
        .map(|(name, out_features, in_features)| v1::LinearLayer {
            name: format!("encoder.layer.{number}.{name}"),
            out_features,
            in_features,
        })
    };
    v1::BaseModel {
        name: "minilm-l6".to_owned(),
        architecture: "bert".to_owned(),
        hidden_size: 384,
        max_positions: 512,
        linears: (0..6).flat_map(block).collect(),
        ..v1::BaseModel::default()
    }
}

/// Numbers in [-0.5, 0.5) for every tensor of a manifest; the same for the same `seed`.
pub fn drawn(manifest: &[TensorEntry], seed: u64) -> TensorSet {
    // SplitMix64: short, and good enough for numbers that nobody learns from.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut draw = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let tensor = |entry: &TensorEntry| Tensor {
        shape: entry.shape.clone(),
        data: (0..entry.numbers()).map(|_| draw()).collect(),
    };
    manifest.iter().map(tensor).zip(manifest).map(|(tensor, entry)| (entry.name.clone(), tensor)).collect()
}

/// The updates of one round, as files, and what aggregating them takes.
pub struct Round {
    job: Job,
    dir: tempfile::TempDir,
    frozen: Option<PathBuf>,
    published: Vec<PathBuf>,
    updates: Vec<Contribution>,
}

impl Round {
    /// A method's first training round with so many clients of equal
    /// weight; its warm-up is done here where it has one.
    ///
    /// # Errors
    /// The method refuses the run, a file cannot be written, or the warm-up cannot be aggregated.
    pub fn of(method: &str, clients: usize) -> Result<Self, MethodError> {
        let run = example_run(method).expect("the examples are part of the repository and tested");
        let job = Job::new(&Registry::builtin(), &run, &encoder_shapes())?;
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let mut round = Self { job, dir, frozen: None, published: Vec::new(), updates: Vec::new() };
        if round.job.needs_warm_up() {
            round.updates = round.upload(Kind::WarmUp, 1)?;
            let out = round.dir.path().join("warm-up");
            let output = round.aggregate_into(Kind::WarmUp, 0, &out)?;
            round.frozen = output.frozen;
            round.published = vec![output.global];
        }
        round.updates = round.upload(Kind::Train, clients)?;
        Ok(round)
    }

    fn upload(&self, kind: Kind, clients: usize) -> Result<Vec<Contribution>, MethodError> {
        let (round, rank) = (u32::from(kind == Kind::Train), self.job.rank());
        let instance = Instance::in_round(round).with_rank(rank);
        let manifest = self.job.upload_manifest(kind, instance);
        let update = |number: usize| {
            let client = format!("client-{number:04}");
            let path = self.dir.path().join(format!("{client}.safetensors"));
            self.job.write_update(kind, instance.of_client(&client), &drawn(&manifest, number as u64 + 1), &path)?;
            Ok(Contribution { client, weight: 1.0 / clients as f64, rank, path })
        };
        (0..clients).map(update).collect()
    }

    /// Aggregates the round.
    ///
    /// # Errors
    /// The output folder cannot be made, or the method cannot aggregate the updates.
    pub fn aggregate(&self) -> Result<AggregateOutput, MethodError> {
        self.aggregate_into(Kind::Train, 1, &self.dir.path().join("round"))
    }

    fn aggregate_into(&self, kind: Kind, round: u32, out_dir: &Path) -> Result<AggregateOutput, MethodError> {
        std::fs::create_dir_all(out_dir).map_err(|source| MethodError::Io { path: out_dir.to_owned(), source })?;
        self.job.aggregate(AggregateInput {
            kind,
            round,
            updates: self.updates.clone(),
            frozen: self.frozen.clone(),
            published: self.published.clone(),
            server: None,
            server_state: None,
            out_dir,
            progress: &|_, _| {},
        })
    }
}
