//! Laws: how the clients' tensors of one target become one. Written once, shared by all methods.

mod agree;
mod mean;
mod stack;

use serde::{Deserialize, Serialize};

pub use stack::{STACK_A, STACK_B, stack_delta, stack_dense};

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
    /// Factors side by side, weight and scale folded into the inner one: the sum of the deltas, exactly.
    Stack,
    /// All clients computed the same thing: what more than half of them sent is taken, the odd clients are named.
    Agree,
}

/// One client's tensors of one target.
#[derive(Debug)]
pub struct Part<'a> {
    /// The client.
    pub client: &'a str,
    /// Its share, 0 to 1.
    pub weight: f64,
    /// What the tensors stand for.
    pub delta: &'a Delta,
    /// All tensors that the delta names.
    pub tensors: &'a TensorSet,
    /// The parts that the client sent.
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

/// A law at work on one target. Takes one client after another, in client-id order.
pub trait Law {
    /// Takes one client's tensors in.
    fn absorb(&mut self, part: &Part<'_>) -> Result<(), MethodError>;

    /// The aggregate.
    fn finish(self: Box<Self>) -> Result<Merged, MethodError>;
}

impl LawKind {
    /// Starts the law on a target. `stacked` is the sum of the clients' folded ranks; the stack law alone asks for it.
    pub fn start(self, target: &str, stacked: usize) -> Box<dyn Law> {
        match self {
            Self::Mean => Box::new(mean::Mean::new(target)),
            Self::Stack => Box::new(stack::Stack::new(target, stacked)),
            Self::Agree => Box::new(agree::Agree::new(target)),
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
