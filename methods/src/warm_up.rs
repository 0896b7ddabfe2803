//! What a method may ask clients for before the first training round.
//!
//! Further statistics are to come: sketches of a target's inputs (sums over tokens, for which there
//! is [`LawKind::Sum`]) and scores of whole layers. They become variants of [`Statistic`] when a
//! method and a trainer can compute them.

use serde::{Deserialize, Serialize};

use crate::delta::Delta;
use crate::error::MethodError;
use crate::law::LawKind;
use crate::layout::{Target, TensorSpec};
use crate::tensor::TensorSet;

/// Which factors of a base weight `[out, in]` a client computes (see
/// [`crate::init::base_factors`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BaseFactors {
    /// The r largest singular triplets.
    SvdHead,
    /// The r smallest singular triplets.
    SvdTail,
    /// The first r columns, pivots and rows of the LU decomposition with row pivots.
    Lu,
    /// The first r columns, the first r rows, and where they cross.
    Slice,
}

/// A statistic that clients compute in the warm-up round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "StatisticName", from = "StatisticName")]
pub enum Statistic {
    /// The client attaches the probe (trained parts zero) and uploads the gradient of the mean loss
    /// with respect to each trained part.
    Gradient,
    /// The client uploads factors of the base weight. Reads no data.
    Base(BaseFactors),
}

impl Statistic {
    /// True when it is computed from a client's examples,
    /// so that a run with privacy must pay for it.
    pub fn reads_data(self) -> bool {
        match self {
            Self::Gradient => true,
            Self::Base(_) => false,
        }
    }
}

/// A statistic as files name it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StatisticName {
    Gradient,
    BaseFactors,
    BaseSvdTail,
    BaseLu,
    BaseSlice,
}

impl From<Statistic> for StatisticName {
    fn from(statistic: Statistic) -> Self {
        match statistic {
            Statistic::Gradient => Self::Gradient,
            Statistic::Base(BaseFactors::SvdHead) => Self::BaseFactors,
            Statistic::Base(BaseFactors::SvdTail) => Self::BaseSvdTail,
            Statistic::Base(BaseFactors::Lu) => Self::BaseLu,
            Statistic::Base(BaseFactors::Slice) => Self::BaseSlice,
        }
    }
}

impl From<StatisticName> for Statistic {
    fn from(name: StatisticName) -> Self {
        match name {
            StatisticName::Gradient => Self::Gradient,
            StatisticName::BaseFactors => Self::Base(BaseFactors::SvdHead),
            StatisticName::BaseSvdTail => Self::Base(BaseFactors::SvdTail),
            StatisticName::BaseLu => Self::Base(BaseFactors::Lu),
            StatisticName::BaseSlice => Self::Base(BaseFactors::Slice),
        }
    }
}

/// One statistic that a method asks for, of one target. Part names
/// are unique among all that it asks of a target.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmUp {
    /// What clients compute.
    pub statistic: Statistic,
    /// Examples per client over which a gradient is averaged; 0 where no data are read.
    pub examples: u32,
    /// Tensors of the probe; sizes may differ between targets. What travels up is uploaded.
    pub layout: Vec<TensorSpec>,
    /// What the probe adds to the weight, over the probe's part names.
    pub delta: Delta,
    /// How the clients' statistics become one: [`LawKind::Mean`],
    /// [`LawKind::Sum`] or [`LawKind::Agree`].
    pub law: LawKind,
}

/// The aggregated statistics of all targets, read on demand: one target's are in memory at a time.
pub struct Statistics<'a> {
    pub(crate) targets: &'a [Target],
    pub(crate) read: &'a dyn Fn(usize) -> Result<TensorSet, MethodError>,
}

impl Statistics<'_> {
    /// The run's targets, in order.
    pub fn targets(&self) -> &[Target] {
        self.targets
    }

    /// What became of the statistics of one target, by the
    /// probes' part names, seeded partners included.
    ///
    /// # Errors
    /// A target that is none of the run's; a file that cannot be read.
    pub fn of(&self, target: &Target) -> Result<TensorSet, MethodError> {
        match self.targets.iter().position(|known| known == target) {
            Some(index) => (self.read)(index),
            None => Err(MethodError::Missing { tensor: target.name.clone(), place: "the warm-up's statistics".into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_files_stay() {
        for (statistic, name) in [
            (Statistic::Gradient, "\"gradient\""),
            (Statistic::Base(BaseFactors::SvdHead), "\"base-factors\""),
            (Statistic::Base(BaseFactors::SvdTail), "\"base-svd-tail\""),
            (Statistic::Base(BaseFactors::Lu), "\"base-lu\""),
            (Statistic::Base(BaseFactors::Slice), "\"base-slice\""),
        ] {
            assert_eq!(serde_json::to_string(&statistic).unwrap(), name);
            assert_eq!(serde_json::from_str::<Statistic>(name).unwrap(), statistic);
        }
    }
}
