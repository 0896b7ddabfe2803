//! A job: a run file resolved against a base model and a registry. What every other crate calls.

mod adapter_state;
mod check;
mod manifest;
mod resolve;
mod starting;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use rondo_proto::run_file::{Dtype, Pooling, Server, TaskKind};

pub use adapter_state::{AdapterState, MergedDelta};
pub(crate) use adapter_state::{SEEDS, STARTED, VERSION};

use crate::answers::{DpSupport, Exactness, Publication};
use crate::at::{At, Instance};
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::error::MethodError;
use crate::head::HeadShape;
use crate::law::LawKind;
use crate::layout::{NamedSpec, Target};
use crate::method::Method;
use crate::start_adapter::PlacedAdapter;
use crate::warm_up::{Statistic, WarmUp};

/// Which upload of a run is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The warm-up's statistic.
    WarmUp,
    /// A training round's update.
    Train,
}

/// One thing that a client computes in the warm-up round, of all targets that ask for it.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmUpStep {
    /// What to compute.
    pub statistic: Statistic,
    /// Examples over which a gradient is averaged; 0 where no data are read.
    pub examples: u32,
    /// The probes, in the order of the targets.
    pub probes: Vec<Probe>,
}

/// What a warm-up asks of one target.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Index into [`Job::targets`].
    pub target: usize,
    /// The probe's tensors. What travels up is uploaded.
    pub layout: Vec<NamedSpec>,
    /// What the probe adds to the weight, over the probe's part names.
    pub delta: Delta,
}

/// A resolved run. Cheap to clone.
#[derive(Clone)]
pub struct Job {
    inner: Arc<Inner>,
    /// The adapter that the run starts from.
    start: Option<Arc<PlacedAdapter>>,
}

struct Inner {
    method: Arc<dyn Method>,
    config: MethodConfig,
    targets: Vec<Target>,
    head: Option<HeadShape>,
    wire: Dtype,
    server: Option<Server>,
    /// One list per target, or none at all.
    warm_up: Vec<Vec<WarmUp>>,
    /// Sizes in which tensors are drawn that the targets share, by the name under which they do.
    shared: BTreeMap<String, Vec<usize>>,
    task: TaskFacts,
}

/// What the export says about the task.
pub(crate) struct TaskFacts {
    pub(crate) kind: TaskKind,
    pub(crate) run: String,
    pub(crate) architecture: String,
    pub(crate) base_digest: String,
    pub(crate) labels: Vec<String>,
    pub(crate) pooling: Pooling,
    pub(crate) max_tokens: usize,
    /// Count of training rounds.
    pub(crate) rounds: u32,
}

impl Job {
    /// The adapted layers, in the order of the base model.
    pub fn targets(&self) -> &[Target] {
        &self.inner.targets
    }

    /// The method.
    pub fn method(&self) -> &dyn Method {
        &*self.inner.method
    }

    /// The method's settings.
    pub fn config(&self) -> &MethodConfig {
        &self.inner.config
    }

    /// The run's rank.
    pub fn rank(&self) -> usize {
        self.inner.config.rank
    }

    /// The classifier head, if the task has one.
    pub fn head(&self) -> Option<HeadShape> {
        self.inner.head
    }

    /// Number format of updates and published files. Warm-up statistics and frozen artefacts are
    /// always f32: rounded to bf16, factors would be orthonormal to 1e-2 only.
    pub fn wire_dtype(&self) -> Dtype {
        self.inner.wire
    }

    /// The run's server optimiser, if it has one.
    pub fn server(&self) -> Option<&Server> {
        self.inner.server.as_ref()
    }

    /// True when clients may train with ranks below the run's.
    pub fn mixed_ranks(&self) -> bool {
        self.inner.method.mixed_ranks(&self.inner.config)
    }

    /// The rank a client trains with: `wanted`, 0 standing for
    /// the run's. Refuses what the method cannot mix.
    ///
    /// # Errors
    /// `wanted` is above the run's rank, or below it where the method needs one rank for all.
    pub fn client_rank(&self, wanted: usize) -> Result<usize, MethodError> {
        let run_rank = self.rank();
        let refuse = |problem: String| {
            let method = self.method().id().to_owned();
            Err(MethodError::ClientRank { rank: wanted, run_rank, method, problem })
        };
        match wanted {
            0 => Ok(run_rank),
            same if same == run_rank => Ok(run_rank),
            more if more > run_rank => refuse(format!("at most {run_rank} is allowed")),
            less if self.mixed_ranks() => Ok(less),
            _ => refuse(
                "all clients train with the run's rank; `rondo method list` shows the methods whose ranks may differ"
                    .into(),
            ),
        }
    }

    /// Whether the aggregate of a round (from 1) is exact.
    pub fn exactness(&self, round: u32) -> Exactness {
        self.inner.method.exactness(&self.inner.config, round)
    }

    /// Whether the aggregates of all rounds are exact: the first that is not says why.
    pub fn exactness_of_run(&self) -> Exactness {
        let mut answers = (1..=self.task().rounds.max(1)).map(|round| self.exactness(round));
        answers.find(|answer| *answer != Exactness::Exact).unwrap_or(Exactness::Exact)
    }

    /// How trained tensors become one.
    pub fn law(&self) -> LawKind {
        self.inner.method.law(&self.inner.config)
    }

    /// What becomes of published files.
    pub fn publication(&self) -> Publication {
        self.inner.method.publication(&self.inner.config)
    }

    /// True when trained and seeded tensors start anew in every round.
    pub fn fresh_each_round(&self) -> bool {
        self.inner.method.fresh_each_round(&self.inner.config)
    }

    /// True when the adapter changes nothing before the first training step.
    pub fn starts_at_base(&self) -> bool {
        self.inner.method.starts_at_base(&self.inner.config)
    }

    /// What a private run would release.
    pub fn dp_support(&self) -> DpSupport {
        self.inner.method.dp_support(&self.inner.config)
    }

    /// True when round 0 collects a statistic.
    pub fn needs_warm_up(&self) -> bool {
        !self.inner.warm_up.is_empty()
    }

    /// True when a warm-up reads examples, so that a run with privacy must pay for it.
    pub fn warm_up_reads_data(&self) -> bool {
        self.inner.warm_up.iter().flatten().any(|asked| asked.statistic.reads_data())
    }

    /// The law by which all statistics of the warm-up become one.
    /// `None` without a warm-up, or where the laws differ.
    pub fn warm_up_law(&self) -> Option<LawKind> {
        let mut laws = self.inner.warm_up.iter().flatten().map(|asked| asked.law);
        let first = laws.next()?;
        laws.all(|law| law == first).then_some(first)
    }

    /// How often a warm-up goes over a client's examples.
    pub fn warm_up_passes(&self) -> usize {
        self.warm_up().iter().filter(|step| step.statistic.reads_data()).count()
    }

    /// What clients do in the warm-up round, one after the other; empty without a warm-up.
    /// Statistics of one kind over equally many examples are one step.
    pub fn warm_up(&self) -> Vec<WarmUpStep> {
        let mut steps: Vec<WarmUpStep> = Vec::new();
        for (target, asked) in self.inner.warm_up.iter().enumerate() {
            for asked in asked {
                let probe = Probe { target, layout: self.probe_layout(target, asked), delta: asked.delta.clone() };
                let WarmUp { statistic, examples, .. } = *asked;
                match steps.iter_mut().find(|step| (step.statistic, step.examples) == (statistic, examples)) {
                    Some(step) => step.probes.push(probe),
                    None => steps.push(WarmUpStep { statistic, examples, probes: vec![probe] }),
                }
            }
        }
        steps
    }

    /// What a question to the method about a target (an index among [`Job::targets`]) is about.
    pub fn at<'a>(&'a self, target: usize, instance: Instance<'a>) -> At<'a> {
        let Instance { round, rank, client } = instance;
        At { target: &self.inner.targets[target], rank: rank.unwrap_or_else(|| self.rank()), round, client }
    }

    /// The change of a target's weight over the layout's part
    /// names. `target` is an index among [`Job::targets`].
    pub fn delta(&self, target: usize, instance: Instance<'_>) -> Delta {
        self.inner.method.delta(&self.inner.config, self.at(target, instance))
    }

    /// The constant change that the method adds to a target's
    /// weight, over frozen parts of the run's layout.
    pub fn offset(&self, target: usize) -> Option<Delta> {
        self.inner.method.offset(&self.inner.config, self.at(target, Instance::OF_RUN))
    }

    pub(crate) fn task(&self) -> &TaskFacts {
        &self.inner.task
    }

    pub(crate) fn probes(&self) -> &[Vec<WarmUp>] {
        &self.inner.warm_up
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("method", &self.method().id())
            .field("config", &self.inner.config)
            .field("targets", &self.inner.targets.len())
            .field("head", &self.inner.head)
            .finish_non_exhaustive()
    }
}
