//! Laws: how the clients' tensors of one target become one. Written once, shared by all methods.

mod agree;
mod mean;
mod residual;
mod stack;
mod sum;
mod truncate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use residual::{RESIDUAL_A, RESIDUAL_B, residual_rank};
pub use stack::{STACK_A, STACK_B, pair_delta, pair_dense};

use crate::delta::Delta;
use crate::error::MethodError;
use crate::tensor::TensorSet;

/// Updates per partial sum. Sums are built as (u1 + ... + u256) + (u257 + ...) + ..., so that
/// their bits do not depend on how many workers might share the work.
pub const PARTIAL_SUM: usize = 256;

/// The laws there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LawKind {
    /// The weighted mean of each tensor.
    Mean,
    /// The weighted mean of each tensor, smaller ones filled up with zeros behind their last rows
    /// and columns.
    Padded,
    /// Factors side by side, weight and scale folded into the inner one: the sum of the deltas,
    /// exactly.
    Stack,
    /// The weighted mean of each tensor, and as two further factors what its delta lacks of the
    /// mean of the deltas.
    Residual,
    /// The best approximation of the mean of the deltas at the run's rank, by QR of the stack and
    /// an SVD of its core.
    Truncate,
    /// The sum of each tensor, whatever the clients' shares; of warm-up statistics only.
    Sum,
    /// All clients computed the same thing: what more than half of them sent is taken, the
    /// outliers are named.
    Agree,
}

/// One client's tensors of one target.
#[derive(Debug, Clone, Copy)]
pub struct TargetUpdate<'a> {
    /// The client.
    pub client: &'a str,
    /// Its share, 0 to 1.
    pub weight: f64,
    /// What the tensors stand for.
    pub delta: &'a Delta,
    /// All tensors that the delta names.
    pub tensors: &'a TensorSet,
    /// The parts that are aggregated.
    pub sent: &'a [String],
}

/// What a law made of one target.
#[derive(Debug, Clone, PartialEq)]
pub struct LawOutput {
    /// The aggregate, by part name.
    pub tensors: TensorSet,
    /// Clients that the agreement left out.
    pub outliers: Vec<Outlier>,
}

/// A client whose factors differ from what more than half of the clients sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlier {
    /// The client.
    pub client: String,
    /// ||D_k - D||_F / ||D||_F, D being the delta of the majority.
    pub relative_error: f64,
}

impl From<TensorSet> for LawOutput {
    fn from(tensors: TensorSet) -> Self {
        Self { tensors, outliers: Vec::new() }
    }
}

/// What a law has to know of a target before the first client comes. Each law looks at what it
/// needs.
#[derive(Debug, Clone)]
pub struct LawContext<'a> {
    /// The target.
    pub target: &'a str,
    /// Sum of the clients' folded ranks; for laws that stack.
    pub stacked: usize,
    /// What published tensors stand for; for laws that publish other tensors than they were sent.
    pub delta: Option<&'a Delta>,
    /// Shapes of the published trained tensors, by part; for laws that pad with zeros.
    pub shapes: BTreeMap<String, Vec<usize>>,
}

impl<'a> LawContext<'a> {
    /// The context of a target of which nothing but the name matters.
    pub fn of(target: &'a str) -> Self {
        Self { target, stacked: 0, delta: None, shapes: BTreeMap::new() }
    }
}

/// A law at work on one target. Takes one client after another, in client-id order.
pub trait Law {
    /// Takes one client's tensors in.
    ///
    /// # Errors
    /// Tensors that are missing, or that do not fit those of the clients before.
    fn absorb(&mut self, update: &TargetUpdate<'_>) -> Result<(), MethodError>;

    /// The aggregate.
    ///
    /// # Errors
    /// No clients, clients that disagree, or a decomposition that fails.
    fn finish(self: Box<Self>) -> Result<LawOutput, MethodError>;
}

/// Everything that the rest of the crate asks of a law. Each law's file holds one constant of it.
#[derive(Debug, Clone, Copy)]
struct LawDefinition {
    /// Starts the law on a target.
    start: fn(&LawContext<'_>) -> Box<dyn Law>,
    /// See [`LawKind::merged`].
    merged: Option<(&'static str, &'static str)>,
    /// See [`LawKind::keeps_tensors`].
    keeps_tensors: bool,
    /// See [`LawKind::takes_smaller`].
    takes_smaller: bool,
    /// See [`LawKind::keeps_unsent`].
    keeps_unsent: bool,
    /// See [`LawKind::stacks`].
    stacks: bool,
    /// See [`LawKind::needs_pair`].
    needs_pair: bool,
    /// See [`LawKind::only_for_warm_up`].
    only_for_warm_up: bool,
    /// See [`LawKind::serves_warm_up`].
    serves_warm_up: bool,
    /// See [`LawKind::server_steps`].
    server_steps: Result<(), &'static str>,
}

impl LawKind {
    /// The one place that knows which file a law is in.
    const fn definition(self) -> LawDefinition {
        match self {
            Self::Mean => mean::MEAN,
            Self::Padded => mean::PADDED,
            Self::Stack => stack::STACK,
            Self::Residual => residual::RESIDUAL,
            Self::Truncate => truncate::TRUNCATE,
            Self::Sum => sum::SUM,
            Self::Agree => agree::AGREE,
        }
    }

    /// Starts the law on a target.
    pub fn start(self, context: &LawContext<'_>) -> Box<dyn Law> {
        (self.definition().start)(context)
    }

    /// Names of the outer and the inner factor, `[out, h]` and `[h, in]`, whose product everybody
    /// merges into the base; `None` for a law that makes none.
    pub fn merged(self) -> Option<(&'static str, &'static str)> {
        self.definition().merged
    }

    /// True when every trained tensor has a successor of the run's shape, so that it must travel
    /// both ways.
    pub fn keeps_tensors(self) -> bool {
        self.definition().keeps_tensors
    }

    /// True when clients of lower ranks may send smaller tensors than the run's.
    pub fn takes_smaller(self) -> bool {
        self.definition().takes_smaller
    }

    /// True when it keeps what a client does not send: what lies outside a leading block that
    /// trains, and parts that rest.
    pub fn keeps_unsent(self) -> bool {
        self.definition().keeps_unsent
    }

    /// True when it works with the clients' folded deltas, so that a context must say how high they
    /// stack.
    pub fn stacks(self) -> bool {
        self.definition().stacks
    }

    /// True when it publishes two factors, so that the run's delta must be a product of two.
    pub fn needs_pair(self) -> bool {
        self.definition().needs_pair
    }

    /// True when it serves warm-up statistics and no training updates.
    pub fn only_for_warm_up(self) -> bool {
        self.definition().only_for_warm_up
    }

    /// True when it can make one of the clients' warm-up statistics.
    pub fn serves_warm_up(self) -> bool {
        self.definition().serves_warm_up
    }

    /// Whether a server optimiser can step from the last published tensors towards what it makes.
    ///
    /// # Errors
    /// Why not.
    pub fn server_steps(self) -> Result<(), &'static str> {
        self.definition().server_steps
    }
}

/// Shares that sum to 1, from amounts such as example counts. Refuses negative, infinite and
/// all-zero amounts.
///
/// # Errors
/// An amount is negative or not finite, all are 0, or their sum is not finite.
pub fn shares(amounts: &[f64]) -> Result<Vec<f64>, MethodError> {
    let sum: f64 = amounts.iter().sum();
    if amounts.iter().any(|amount| !amount.is_finite() || *amount < 0.0) || !sum.is_finite() || sum <= 0.0 {
        return Err(MethodError::Contributions(format!(
            "weights {amounts:?} must be finite, not negative and not all 0"
        )));
    }
    Ok(amounts.iter().map(|amount| amount / sum).collect())
}
