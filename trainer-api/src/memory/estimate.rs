//! The estimated peak of a training step, by part.
//!
//! Counts are of numbers per token, read off what the tape of one layer holds (`docs/memory.md`
//! says which). Of the constants below, [`PROCESS`] was set by measured steps, those in
//! `docs/memory.md`; the others follow from how a step is built.

use rondo_methods::{Instance, Job, NamedSpec, Publication, Role};
use rondo_proto::run_file::{Dtype, Quantise, RunFile};
use rondo_proto::v1;
use serde::Serialize;

use super::model_sizes::{LayerKind, ModelSizes, TensorSize};

/// The program, libtorch's code and tables, its threads, once a first step was taken. Measured with
/// SmolLM2-135M on Linux: with model and tokenizer loaded the program held 175 to 186 MB more than
/// the weights take.
const PROCESS: u64 = 160 << 20;
/// A tokenizer in memory, per byte of its file; an estimate, checked together with [`PROCESS`]
/// only.
const TOKENIZER_FACTOR: u64 = 8;
/// Logits of one chunk: numbers, and the fewest tokens (as in the trainer's `loss`).
const CHUNK_NUMBERS: u64 = 8 << 20;
const CHUNK_TOKENS: u64 = 16;
/// Rows of a packed vocabulary matrix that are unpacked at once.
const UNPACKED_ROWS: u64 = 4096;
/// Texts at once where each has a copy of the adapter.
const COPIES: u64 = 32;
/// Bytes per number of a matrix packed to NF4: half a byte, and an f32 scale for 64.
const NF4_BYTES: (u64, u64) = (9, 16);

/// What a run asks of a base model: the sizes that decide a training step's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Of the base model.
    pub sizes: ModelSizes,
    /// Compute type.
    pub dtype: Dtype,
    /// How the base's linear layers are held.
    pub quantise: Quantise,
    /// Examples of one optimiser step.
    pub batch: u64,
    /// Longest input in tokens; every text is counted as that long.
    pub max_tokens: u64,
    /// Numbers of the adapter that train.
    pub trained: u64,
    /// Numbers of the adapter that do not.
    pub frozen: u64,
    /// Rows that the widest layer's adapters give per token.
    pub narrow: u64,
    /// Numbers that are merged into the base: of the adapter that the run starts from, of the
    /// method's constant offset, and of stacks published in earlier rounds, at the run's end (of
    /// methods that accumulate).
    pub stacked: u64,
    /// Numbers of the weights that they change, which are held a second time.
    pub merged: u64,
    /// True when FedProx keeps the adapter as received.
    pub proximal: bool,
    /// True when every text has a copy of the adapter, as gradients of single examples need it.
    pub copies: bool,
}

/// How a training step is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StepMode {
    /// Only the states between layers are kept.
    pub checkpoint: bool,
    /// Texts at once.
    pub micro_batch: u64,
}

/// When a part is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryPhase {
    /// All the time.
    Always,
    /// While the layers run backward.
    Layers,
    /// While the loss over the vocabulary is taken.
    Loss,
}

/// One part of the estimate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryPart {
    /// What it is.
    pub name: &'static str,
    /// Bytes.
    pub bytes: u64,
    /// When it is there.
    pub phase: MemoryPhase,
}

/// An estimated peak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// Bytes at the worst moment: what is always there, and the larger of the two phases.
    pub peak: u64,
    /// Its parts.
    pub parts: Vec<MemoryPart>,
}

/// Numbers of the parts of which a method makes its constant offset.
fn offset_numbers(job: &Job) -> u64 {
    let layout = job.layout(Instance::OF_RUN);
    let is_named = |named: &&NamedSpec| {
        let offset = named.target.and_then(|target| job.offset(target));
        offset.is_some_and(|offset| offset.parts().contains(&named.spec.part.as_str()))
    };
    layout.iter().filter(is_named).map(|named| named.spec.numbers() as u64).sum()
}

impl Workload {
    /// What this run asks of this base, at this client's rank.
    pub fn new(sizes: ModelSizes, run: &RunFile, job: &Job, rank: usize) -> Self {
        let layout = job.layout(Instance::in_round(1).with_rank(rank));
        let numbers = |trained: bool| -> u64 {
            let of_role = layout.iter().filter(|named| (named.spec.role == Role::Trained) == trained);
            of_role.map(|named| named.spec.numbers() as u64).sum()
        };
        let accumulates = job.publication() == Publication::Accumulate;
        let earlier = u64::from(run.rounds.count.saturating_sub(1)) * u64::from(run.rounds.cohort);
        let stacks = accumulates && earlier > 0;
        let changed = job.targets().iter().enumerate().filter(|(index, _)| stacks || job.offset(*index).is_some());
        let changed = changed.map(|(_, target)| (target.out * target.inp) as u64).sum();
        let trained = numbers(true);
        let layers = sizes.layers.max(1);
        Self {
            dtype: run.train.dtype,
            quantise: run.train.quantise,
            batch: u64::from(run.train.batch),
            max_tokens: run.task.max_tokens as u64,
            trained,
            frozen: numbers(false),
            narrow: 2 * rank as u64 * (job.targets().len() as u64).div_ceil(layers),
            stacked: if accumulates { trained * earlier } else { 0 } + offset_numbers(job),
            merged: changed,
            proximal: run.train.proximal != 0.0,
            copies: run.privacy.as_ref().is_some_and(|asked| asked.unit == "example"),
            sizes,
        }
    }

    /// The same for a run that starts from an adapter, if it does.
    pub fn starting_from(mut self, initial: Option<&v1::InitialAdapter>, base: &v1::BaseModel, job: &Job) -> Self {
        let Some(initial) = initial else { return self };
        let targets: u64 = job.targets().iter().map(|target| (target.out * target.inp) as u64).sum();
        // Stacks change every target; an offset may change some.
        let all = self.merged > 0 && self.merged == targets;
        let is_target = |linear: &v1::LinearLayer| {
            let index = job.targets().iter().position(|target| target.name == linear.name);
            index.is_some_and(|index| all || job.offset(index).is_some())
        };
        let is_changed = |linear: &&v1::LinearLayer| initial.targets.contains(&linear.name) || is_target(linear);
        let changed = base.linears.iter().filter(is_changed);
        self.merged = changed.map(|linear| u64::from(linear.out_features) * u64::from(linear.in_features)).sum();
        self.stacked += initial.layout_bytes / 4;
        self
    }

    /// Texts that go through the model at once when nothing stands against it: the whole batch or,
    /// where every text has a copy of the adapter, so many that their number hardly costs speed.
    pub fn most_texts(&self) -> u64 {
        if self.copies { self.batch.min(COPIES) } else { self.batch }
    }

    /// True when some weights are unpacked for each use; then the step is always checkpointed.
    pub fn is_packed(&self) -> bool {
        let nf4 = self.quantise == Quantise::Nf4;
        self.sizes.tensors.iter().any(|tensor| tensor.linear && (tensor.packed || nf4))
    }

    /// The peak of a step in this mode, in bytes.
    pub fn estimate(&self, mode: StepMode) -> MemoryEstimate {
        let ModelSizes { hidden, layers, .. } = self.sizes;
        let width = self.dtype.width() as u64;
        let tokens = mode.micro_batch * self.max_tokens;
        let (saved, passing) = self.layer();
        let mut parts = vec![
            ("program and libtorch", PROCESS + TOKENIZER_FACTOR * self.sizes.tokenizer, MemoryPhase::Always),
            ("base weights", self.base(), MemoryPhase::Always),
            ("adapter, gradients and optimiser", self.adapter(), MemoryPhase::Always),
        ];
        if mode.checkpoint || self.is_packed() {
            parts.push(("states between layers", (layers + 2) * tokens * hidden * width, MemoryPhase::Always));
            parts.push(("one layer, forward and backward", tokens * (saved + passing), MemoryPhase::Layers));
        } else {
            parts.push(("every layer's tape", layers * tokens * saved, MemoryPhase::Always));
            parts.push(("one layer, backward", tokens * passing, MemoryPhase::Layers));
        }
        if self.copies {
            // The copies, their gradients, and these once more as plain numbers; a sum in 64-bit
            // integers and its release.
            let bytes = self.trained * (mode.micro_batch * 12 + 24);
            parts.push(("a copy of the adapter per text", bytes, MemoryPhase::Always));
        }
        if self.is_packed() {
            parts.push(("one layer's weights, unpacked", self.unpacked(), MemoryPhase::Layers));
        }
        if self.sizes.is_language() {
            parts.push(("a chunk of the vocabulary", self.chunk(tokens), MemoryPhase::Loss));
        }
        let of_phase = |phase| parts.iter().filter(|part| part.2 == phase).map(|part| part.1).sum::<u64>();
        let peak = of_phase(MemoryPhase::Always) + of_phase(MemoryPhase::Layers).max(of_phase(MemoryPhase::Loss));
        MemoryEstimate {
            peak,
            parts: parts.into_iter().map(|(name, bytes, phase)| MemoryPart { name, bytes, phase }).collect(),
        }
    }

    fn base(&self) -> u64 {
        let width = self.dtype.width() as u64;
        let of = |tensor: &TensorSize| match (tensor.packed, tensor.linear, self.quantise) {
            (true, ..) => tensor.bytes,
            (false, true, Quantise::Nf4) => tensor.numbers * NF4_BYTES.0 / NF4_BYTES.1,
            _ => tensor.numbers * width,
        };
        let merged = if self.is_packed() { 0 } else { self.merged * width };
        self.sizes.tensors.iter().map(of).sum::<u64>() + merged
    }

    /// In f32: the tensor, its gradient, two moments and the state as received; the update to send
    /// comes when gradients and layers are gone. What does not train is there as received and as a
    /// tensor.
    fn adapter(&self) -> u64 {
        // Stacks stay unmerged on a packed base, so they are there as tensors too.
        let stacked = if self.is_packed() { 2 } else { 1 };
        let trained = 5 + u64::from(self.proximal);
        4 * (self.trained * trained + self.frozen * 2 + self.stacked * stacked)
    }

    /// Bytes per token of one layer: what its tape holds, and what comes and goes while it runs
    /// backward.
    fn layer(&self) -> (u64, u64) {
        let ModelSizes { hidden, query, inner, .. } = self.sizes;
        let width = self.dtype.width() as u64;
        // A norm's input is held in f32, whatever the model computes in.
        let norms = 2 * hidden * 4;
        let attention = 4 * query;
        let (numbers, passing) = match self.sizes.layer_kind {
            LayerKind::GatedDecoder => (attention + 3 * inner + 2 * hidden, 3 * inner + 2 * hidden),
            LayerKind::Encoder | LayerKind::Decoder => (attention + 2 * inner + 2 * hidden, 2 * inner + 2 * hidden),
        };
        (norms + width * (numbers + self.narrow), width * passing)
    }

    /// One layer's matrices as numbers.
    fn unpacked(&self) -> u64 {
        let numbers: u64 = self.sizes.tensors.iter().filter(|tensor| tensor.linear).map(|tensor| tensor.numbers).sum();
        numbers / self.sizes.layers.max(1) * self.dtype.width() as u64
    }

    fn chunk(&self, tokens: u64) -> u64 {
        let width = self.dtype.width() as u64;
        let vocabulary = self.sizes.vocabulary.max(1);
        let rows = (CHUNK_NUMBERS / vocabulary).max(CHUNK_TOKENS).min(tokens);
        // Logits in f32; in another type they are there in that type as well.
        let logits = rows * vocabulary * if width == 4 { 4 } else { 4 + width };
        let states = 3 * tokens * self.sizes.hidden * width;
        let packed = self.sizes.tensors.iter().any(|tensor| tensor.packed && !tensor.linear);
        logits + states + if packed { UNPACKED_ROWS * self.sizes.hidden * width } else { 0 }
    }
}
