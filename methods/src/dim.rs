//! Symbolic dimensions: what the lengths of a tensor's shape stand for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What one dimension of a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dim {
    /// Output features of the target.
    Out,
    /// Input features of the target.
    In,
    /// The adapter's rank.
    Rank,
    /// This many, whatever the target and the rank.
    Fixed(usize),
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Out => f.write_str("out"),
            Self::In => f.write_str("in"),
            Self::Rank => f.write_str("r"),
            Self::Fixed(length) => write!(f, "{length}"),
        }
    }
}

/// A shape whose dimensions are known by length and by meaning. Plain lengths are [`Dim::Fixed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolicShape {
    /// Lengths, outermost first.
    pub lengths: Vec<usize>,
    /// What they are, one for each length.
    pub dims: Vec<Dim>,
}

impl From<&[usize]> for SymbolicShape {
    fn from(lengths: &[usize]) -> Self {
        Self { lengths: lengths.to_vec(), dims: lengths.iter().map(|length| Dim::Fixed(*length)).collect() }
    }
}

impl<const N: usize> From<&[usize; N]> for SymbolicShape {
    fn from(lengths: &[usize; N]) -> Self {
        Self::from(lengths.as_slice())
    }
}
