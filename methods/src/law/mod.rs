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

/// Updates per partial sum. Sums are built as (u1 + ... + u256) + (u257 + ...) + ..., so that their bits do not depend
/// on how many workers might share the work.
pub const PART: usize = 256;

/// The laws there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LawKind {
    /// The weighted mean of each tensor.
    Mean,
    /// The weighted mean of each tensor, smaller ones filled up with zeros behind their last rows and columns.
    Padded,
    /// Factors side by side, weight and scale folded into the inner one: the sum of the deltas, exactly.
    Stack,
    /// The weighted mean of each tensor, and as two further factors what its delta lacks of the mean of the deltas.
    Residual,
    /// The best approximation of the mean of the deltas at the run's rank, by QR of the stack and an SVD of its core.
    Truncate,
    /// The sum of each tensor, whatever the clients' shares; of warm-up statistics only.
    Sum,
    /// All clients computed the same thing: what more than half of them sent is taken, the odd clients are named.
    Agree,
}

/// One client's tensors of one target.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
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
pub struct Merged {
    /// The aggregate, by part name.
    pub tensors: TensorSet,
    /// Clients that the agreement left out.
    pub odd: Vec<Odd>,
}

/// A client whose factors differ from what more than half of the clients sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Odd {
    /// The client.
    pub client: String,
    /// ||D_k - D||_F / ||D||_F, D being the delta of the majority.
    pub off: f64,
}

impl From<TensorSet> for Merged {
    fn from(tensors: TensorSet) -> Self {
        Self { tensors, odd: Vec::new() }
    }
}

/// What a law has to know of a target before the first client comes. Each law looks at what it needs.
#[derive(Debug, Clone)]
pub struct Frame<'a> {
    /// The target.
    pub target: &'a str,
    /// Sum of the clients' folded ranks; of the laws that stack.
    pub stacked: usize,
    /// What published tensors stand for; of the laws that publish other tensors than they were sent.
    pub delta: Option<&'a Delta>,
    /// Shapes of the published trained tensors, by part; of the laws that fill up.
    pub shapes: BTreeMap<String, Vec<usize>>,
}

impl<'a> Frame<'a> {
    /// Of a target of which nothing but the name matters.
    pub fn of(target: &'a str) -> Self {
        Self { target, stacked: 0, delta: None, shapes: BTreeMap::new() }
    }
}

/// A law at work on one target. Takes one client after another, in client-id order.
pub trait Law {
    /// Takes one client's tensors in.
    fn absorb(&mut self, part: &Part<'_>) -> Result<(), MethodError>;

    /// The aggregate.
    fn finish(self: Box<Self>) -> Result<Merged, MethodError>;
}

impl LawKind {
    /// Starts the law on a target.
    pub fn start(self, frame: &Frame<'_>) -> Box<dyn Law> {
        match self {
            Self::Mean => Box::new(mean::Mean::new(frame.target)),
            Self::Padded => Box::new(mean::Mean::padded(frame)),
            Self::Stack => Box::new(stack::Stack::new(frame.target, frame.stacked)),
            Self::Residual => Box::new(residual::Residual::new(frame)),
            Self::Truncate => Box::new(truncate::Truncate::new(frame)),
            Self::Sum => Box::new(sum::Sum::new(frame.target)),
            Self::Agree => Box::new(agree::Agree::new(frame.target)),
        }
    }

    /// Names of the outer and the inner factor, `[out, h]` and `[h, in]`, whose product everybody merges into the base;
    /// `None` for a law that makes none.
    pub fn merged(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Stack => Some((STACK_B, STACK_A)),
            Self::Residual => Some((RESIDUAL_B, RESIDUAL_A)),
            Self::Mean | Self::Padded | Self::Truncate | Self::Sum | Self::Agree => None,
        }
    }

    /// True when every trained tensor has a successor of the run's shape, so that it must travel both ways.
    pub fn keeps_tensors(self) -> bool {
        match self {
            Self::Mean | Self::Padded | Self::Residual | Self::Truncate => true,
            Self::Stack | Self::Sum | Self::Agree => false,
        }
    }

    /// True when clients of lower ranks may send smaller tensors than the run's.
    pub fn takes_smaller(self) -> bool {
        matches!(self, Self::Padded | Self::Stack | Self::Truncate)
    }

    /// True when it works with the clients' folded deltas, so that a frame must say how high they stack.
    pub fn stacks(self) -> bool {
        matches!(self, Self::Stack | Self::Residual | Self::Truncate)
    }

    /// True when it can make one of the clients' warm-up statistics.
    pub fn serves_warm_up(self) -> bool {
        matches!(self, Self::Mean | Self::Sum | Self::Agree)
    }

    /// True when it can make one of the clients' updates of a training round.
    pub fn serves_training(self) -> bool {
        !matches!(self, Self::Sum | Self::Agree)
    }

    /// Whether what it makes can be stepped towards from the last published tensors; if not, why.
    pub fn server_steps(self) -> Result<(), &'static str> {
        match self {
            Self::Mean | Self::Padded => Ok(()),
            Self::Stack => Err("its aggregate is merged into the base, so there are no tensors to step from"),
            Self::Residual => Err("its residual makes up for the plain mean, and for nothing else"),
            Self::Truncate => Err("its factors are derived anew in every round, so moments of them mean nothing"),
            Self::Sum | Self::Agree => Err("it is for warm-up statistics only"),
        }
    }
}

/// Shares that sum to 1, from amounts such as example counts. Refuses negative, infinite and all-zero amounts.
pub fn shares(amounts: &[f64]) -> Result<Vec<f64>, MethodError> {
    let sum: f64 = amounts.iter().sum();
    if amounts.iter().any(|amount| !amount.is_finite() || *amount < 0.0) || !sum.is_finite() || sum <= 0.0 {
        return Err(MethodError::Contributions(format!(
            "weights {amounts:?} must be finite, not negative and not all 0"
        )));
    }
    Ok(amounts.iter().map(|amount| amount / sum).collect())
}
