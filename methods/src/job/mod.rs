//! A job: a run file resolved against a base model and a registry. What every other crate calls.

mod adapter_state;
mod manifest;
mod resolve;
mod starting;
mod state;

use std::sync::Arc;

use rondo_proto::run_file::{Dtype, Pooling, Server, TaskKind};

pub use adapter_state::{AdapterState, MergedDelta};
pub(crate) use adapter_state::{SEEDS, STARTED, VERSION};

use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::error::MethodError;
use crate::head::HeadShape;
use crate::law::LawKind;
use crate::layout::{NamedSpec, Target};
use crate::method::{Exactness, Method, Publication, Statistic, WarmUp};
use crate::start_adapter::PlacedAdapter;

/// Which upload of a run is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The warm-up's statistic.
    WarmUp,
    /// A training round's update.
    Train,
}

/// What a client does in the warm-up round.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmUpPlan {
    /// What to compute.
    pub statistic: Statistic,
    /// Examples over which a gradient is averaged; 0 where none is needed.
    pub examples: u32,
    /// The probe's tensors, all targets.
    pub layout: Vec<NamedSpec>,
    /// What the probe adds to a target's weight, over the probe's part names; the same for each target.
    pub delta: Delta,
    /// How the statistics become one.
    pub law: LawKind,
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
    /// One per target, or none at all.
    warm_up: Vec<WarmUp>,
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

    /// Number format of updates and published files. Warm-up statistics and frozen artefacts are always f32: rounded to
    /// bf16, factors would be orthonormal to 1e-2 only.
    pub fn wire_dtype(&self) -> Dtype {
        self.inner.wire
    }

    /// The run's server optimiser, if it has one.
    pub fn server(&self) -> Option<&Server> {
        self.inner.server.as_ref()
    }

    /// True when clients may train with ranks below the run's.
    pub fn mixed_ranks(&self) -> bool {
        self.inner.method.mixed_ranks()
    }

    /// The rank a client trains with: `wanted`, 0 standing for the run's. Refuses what the method cannot mix.
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

    /// Whether the aggregate is exact.
    pub fn exactness(&self) -> Exactness {
        self.inner.method.exactness(&self.inner.config)
    }

    /// What becomes of published files.
    pub fn publication(&self) -> Publication {
        self.inner.method.publication()
    }

    /// True when round 0 collects a statistic.
    pub fn needs_warm_up(&self) -> bool {
        !self.inner.warm_up.is_empty()
    }

    /// Examples per client for the warm-up's gradient; 0 where none is needed.
    pub fn warm_up_examples(&self) -> u32 {
        self.inner.warm_up.first().map_or(0, |warm_up| warm_up.examples)
    }

    /// What clients do in the warm-up round.
    pub fn warm_up(&self) -> Option<WarmUpPlan> {
        self.inner.warm_up.first().map(|first| WarmUpPlan {
            statistic: first.statistic,
            examples: first.examples,
            layout: self.warm_up_layout(),
            delta: first.delta.clone(),
            law: first.law,
        })
    }

    /// The change of a target's weight over the layout's part names; the same for each target. Rank 0 stands for the
    /// run's.
    pub fn delta(&self, rank: usize) -> Delta {
        self.inner.method.delta(&self.inner.config, self.rank_or_own(rank))
    }

    fn rank_or_own(&self, rank: usize) -> usize {
        if rank == 0 { self.rank() } else { rank }
    }

    pub(crate) fn task(&self) -> &TaskFacts {
        &self.inner.task
    }

    pub(crate) fn probes(&self) -> &[WarmUp] {
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
