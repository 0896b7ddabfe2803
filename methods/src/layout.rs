//! What tensors a method has for one target: name, shape, role, travel and start.

use serde::{Deserialize, Serialize};

use crate::dim::{Dim, SymbolicShape};

/// One adapted linear layer of the base model, weight `[out, inp]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Module name in the base model, for example `encoder.layer.0.attention.self.query`.
    pub name: String,
    /// Output features, rows of the weight.
    pub out: usize,
    /// Input features, columns of the weight.
    pub inp: usize,
}

impl Target {
    /// The shape of a tensor of this target at this rank.
    pub fn shape(&self, rank: usize, dims: &[Dim]) -> SymbolicShape {
        let length = |dim: &Dim| match *dim {
            Dim::Out => self.out,
            Dim::In => self.inp,
            Dim::Rank => rank,
            Dim::Fixed(length) => length,
        };
        SymbolicShape { lengths: dims.iter().map(length).collect(), dims: dims.to_vec() }
    }
}

/// Where a frozen tensor comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Drawn from the run's seed, alike on every machine.
    Seed,
    /// Made by the coordinator from the warm-up's statistic.
    WarmUp,
    /// Factors of the base weight itself.
    Base,
}

/// Whether a tensor learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Receives gradients.
    Trained,
    /// Never receives gradients.
    Frozen {
        /// Where it comes from.
        from: Origin,
    },
}

/// Who receives a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Travel {
    /// Client to coordinator; what comes back has another form.
    Up,
    /// Coordinator to clients, whenever it changed.
    Down,
    /// Up after training, down after aggregation.
    Both,
    /// Coordinator to clients, once per run.
    Once,
    /// Stays where it is; both ends make it themselves.
    Never,
}

impl Travel {
    /// True when a client sends it.
    pub fn goes_up(self) -> bool {
        matches!(self, Self::Up | Self::Both)
    }

    /// True when it is part of the global file that every round publishes.
    pub fn is_published(self) -> bool {
        matches!(self, Self::Both)
    }

    /// True when it is part of a frozen artefact that the coordinator ships by digest.
    pub fn is_shipped_frozen(self) -> bool {
        matches!(self, Self::Once | Self::Down)
    }
}

/// What a tensor holds before anything was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Zeros.
    Zero,
    /// Uniform in (-bound, bound), from the run's seed (see [`crate::init::seeded`]).
    SeededUniform {
        /// Largest absolute value.
        bound: f64,
    },
    /// Normal with mean 0, from the run's seed (see [`crate::init::seeded`]).
    SeededNormal {
        /// Standard deviation, above 0.
        std: f64,
    },
    /// The same number everywhere.
    Constant {
        /// The number, finite.
        value: f64,
    },
    /// A matrix of zeros and ones: entry `[k, j]` is 1 where `j mod period = k`.
    Tile {
        /// Columns after which the pattern comes again, at least 1.
        period: usize,
    },
    /// Comes from a published file; there is no local start.
    Artefact,
}

impl Start {
    /// True when it is drawn from the run's seed.
    pub fn is_seeded(self) -> bool {
        matches!(self, Self::SeededUniform { .. } | Self::SeededNormal { .. })
    }
}

/// One tensor of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Name inside the target, for example `lora_A`; letters, digits and `_` only.
    pub part: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// What the shape's dimensions are, one for each length.
    pub dims: Vec<Dim>,
    /// Whether it learns.
    pub role: Role,
    /// Who receives it.
    pub travel: Travel,
    /// What it holds at first.
    pub start: Start,
    /// Sizes of the leading block that trains and travels up; what lies outside of it
    /// is frozen and keeps its global value. `None` = the whole tensor. A block
    /// without numbers: the tensor rests in this round.
    pub block: Option<Vec<usize>>,
    /// Of a seeded tensor: the name under which all targets share it. It is drawn once, in the
    /// largest sizes that any target has under that name, and each target has its leading block.
    /// `None` = every target draws its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
}

impl TensorSpec {
    /// A trained tensor.
    pub fn trained(part: &str, shape: impl Into<SymbolicShape>, travel: Travel, start: Start) -> Self {
        Self::new(part, shape, Role::Trained, travel, start)
    }

    /// The same seeded tensor, shared by all targets under this name.
    pub fn shared_as(mut self, name: &str) -> Self {
        self.shared = Some(name.to_owned());
        self
    }

    /// The same tensor, of which only the leading block of these sizes trains and travels up.
    pub fn with_block(mut self, block: &[usize]) -> Self {
        self.block = (block != self.shape).then(|| block.to_vec());
        self
    }

    /// The same tensor, resting in this round: nothing of it trains or travels up.
    pub fn resting(mut self) -> Self {
        self.block = Some(vec![0; self.shape.len()]);
        self
    }

    /// Shape of what trains; of a frozen or resting tensor `None`.
    pub fn trained_shape(&self) -> Option<&[usize]> {
        self.moving_shape().filter(|_| self.role == Role::Trained)
    }

    /// Shape of what a client sends; of a tensor that is not sent `None`.
    pub fn sent_shape(&self) -> Option<&[usize]> {
        self.moving_shape().filter(|_| self.travel.goes_up())
    }

    fn moving_shape(&self) -> Option<&[usize]> {
        Some(self.block.as_deref().unwrap_or(&self.shape)).filter(|shape| !shape.contains(&0))
    }

    /// A frozen tensor that everybody draws from the seed, uniform in (-bound, bound).
    pub fn seeded(part: &str, shape: impl Into<SymbolicShape>, bound: f64) -> Self {
        Self::frozen(part, shape, Start::SeededUniform { bound })
    }

    /// A frozen tensor that everybody makes alike, from the seed or by rule.
    pub fn frozen(part: &str, shape: impl Into<SymbolicShape>, start: Start) -> Self {
        Self::new(part, shape, Role::Frozen { from: Origin::Seed }, Travel::Never, start)
    }

    /// A frozen tensor that the warm-up makes and the coordinator ships once.
    pub fn shipped(part: &str, shape: impl Into<SymbolicShape>, from: Origin) -> Self {
        Self::new(part, shape, Role::Frozen { from }, Travel::Once, Start::Artefact)
    }

    /// A tensor without a block, which belongs to its target alone.
    pub fn new(part: &str, shape: impl Into<SymbolicShape>, role: Role, travel: Travel, start: Start) -> Self {
        let SymbolicShape { lengths, dims } = shape.into();
        Self { part: part.to_owned(), shape: lengths, dims, role, travel, start, block: None, shared: None }
    }

    /// True for a tensor of the frozen artefact.
    pub fn is_shipped_frozen(&self) -> bool {
        matches!(self.role, Role::Frozen { .. }) && self.travel.is_shipped_frozen()
    }

    /// The rank that this tensor shows in a file where it has `shape`; none where no dimension is
    /// the rank, or where the count of dimensions differs.
    pub fn rank_in(&self, shape: &[usize]) -> Option<usize> {
        let place = self.dims.iter().position(|dim| *dim == Dim::Rank)?;
        shape.get(place).copied().filter(|_| shape.len() == self.dims.len())
    }

    /// Its dimensions in words, for example `[out, r]`.
    pub fn dims_in_words(&self) -> String {
        let words: Vec<String> = self.dims.iter().map(Dim::to_string).collect();
        format!("[{}]", words.join(", "))
    }

    /// Count of numbers.
    pub fn numbers(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A tensor of the whole adapter: a target's part, or the head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedSpec {
    /// Full name: `<target>.<part>`, `head.weight`, `head.bias`.
    pub name: String,
    /// Index into [`crate::Job::targets`]; `None` for the head.
    pub target: Option<usize>,
    /// The tensor.
    pub spec: TensorSpec,
}
