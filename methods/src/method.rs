//! The questions a method answers. Everything else (wire, training, aggregation, export, tests) follows from them.

use serde::{Deserialize, Serialize};

use crate::config::{MethodConfig, OptionSpec};
use crate::delta::Delta;
use crate::error::MethodError;
use crate::factors::PeftFactors;
use crate::law::LawKind;
use crate::layout::{Target, TensorSpec};
use crate::tensor::{Tensor, TensorSet, fits};

/// What the coordinator does with a published aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Publication {
    /// The latest file holds the adapter.
    Replace,
    /// Every file holds a delta that is merged into the base weights, in order; a client that missed some merges them all
    /// first. Tensors that travel both ways are those of the latest file.
    Accumulate,
}

/// Whether the aggregate's delta equals the weighted mean of the clients' deltas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exactness {
    /// To rounding.
    Exact,
    /// Not, for this reason.
    Approximate(String),
}

impl std::fmt::Display for Exactness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Approximate(why) => write!(f, "approximate: {why}"),
        }
    }
}

/// What a differentially private run of the method would release. However a method trains, one client moves the sum of
/// clipped changes by the clip at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DpSupport {
    /// The coordinator may add the noise to the sum of updates.
    Central {
        /// Parts that are released.
        released: Vec<String>,
    },
    /// Only noise at the client protects, for this reason.
    LocalOnly(String),
    /// No guarantee can be given, for this reason.
    Unsupported(String),
}

/// The statistic a warm-up round collects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// The client attaches the probe (trained parts zero) and uploads the gradient of the mean loss with respect to
    /// each trained part.
    Gradient,
    /// The client uploads the truncated SVD of the base weight: `svd_u` `[out, r]`, `svd_s` `[r]`, `svd_v` `[r, in]`
    /// (see [`crate::init::base_svd::factors`]).
    BaseFactors,
}

/// What a method asks for before the first training round, for one target.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmUp {
    /// What clients compute.
    pub statistic: Statistic,
    /// Examples per client over which a gradient is averaged.
    pub examples: u32,
    /// Tensors of the probe. The trained ones are uploaded.
    pub layout: Vec<TensorSpec>,
    /// What the probe adds to the weight, over the probe's part names.
    pub delta: Delta,
    /// How the clients' statistics become one.
    pub law: LawKind,
}

/// A federated LoRA method. Stateless and pure: equal questions get equal answers on every machine.
pub trait Method: Send + Sync {
    /// Stable lower-case id, used in run files.
    fn id(&self) -> &str;

    /// One line for people.
    fn title(&self) -> &str;

    /// Citation.
    fn paper(&self) -> &str;

    /// Options of the run file's `[method]` table that are this method's own.
    fn options(&self) -> &[OptionSpec] {
        &[]
    }

    /// Refuses combinations that make no sense. Kinds and ranges of options, ranks and targets were checked before.
    fn validate(&self, _config: &MethodConfig, _targets: &[Target]) -> Result<(), MethodError> {
        Ok(())
    }

    /// The tensors of one target for a client of this rank. Either smaller tensors, or the run's with a leading block that
    /// trains ([`TensorSpec::block`]): where all clients share one basis.
    fn layout(&self, config: &MethodConfig, target: &Target, rank: usize) -> Vec<TensorSpec>;

    /// Whether a trained part trains in this round (from 1). One that rests keeps its published value, and does not travel
    /// up.
    fn trains_in(&self, _config: &MethodConfig, _round: u32, _part: &str) -> bool {
        true
    }

    /// What a client of a lower rank starts from: the published tensors of a target, at the run's rank, cut to its own
    /// layout. By default the leading rows and columns of each.
    fn narrowed(&self, config: &MethodConfig, target: &Target, rank: usize, published: TensorSet) -> TensorSet {
        let layout = self.layout(config, target, rank);
        let cut = |(part, tensor): (String, Tensor)| match layout.iter().find(|spec| spec.part == part) {
            Some(spec) if fits(&spec.shape, &tensor.shape) => (part, tensor.leading(&spec.shape)),
            _ => (part, tensor),
        };
        published.into_iter().map(cut).collect()
    }

    /// True when trained and seeded tensors start anew in every round, seeded by (seed, round, client).
    fn fresh_each_round(&self) -> bool {
        false
    }

    /// True when the adapter changes nothing before the first training step.
    fn starts_at_base(&self, _config: &MethodConfig) -> bool {
        true
    }

    /// The statistic needed before the first training round, if any. Either for all targets or for none.
    fn warm_up(&self, _config: &MethodConfig, _target: &Target) -> Option<WarmUp> {
        None
    }

    /// Turns a target's aggregated statistic (by part name of the probe) into every tensor of the layout whose start is
    /// [`crate::Start::Artefact`].
    fn finish_warm_up(
        &self,
        _config: &MethodConfig,
        _target: &Target,
        _statistic: &TensorSet,
    ) -> Result<TensorSet, MethodError> {
        Ok(TensorSet::new())
    }

    /// How trained tensors become one.
    fn law(&self) -> LawKind;

    /// What becomes of a published aggregate.
    fn publication(&self) -> Publication {
        if self.law().merged().is_some() { Publication::Accumulate } else { Publication::Replace }
    }

    /// Whether a server optimiser may step from the last published tensors towards the law's, moments in hand; if not,
    /// why. By default where the law averages tensors that keep their meaning.
    fn server_steps(&self, _config: &MethodConfig) -> Result<(), String> {
        self.law().server_steps().map_err(str::to_owned)
    }

    /// The change of the weight, `[out, in]`, over the layout's part names.
    fn delta(&self, config: &MethodConfig, rank: usize) -> Delta;

    /// New tensors with the same delta, after the aggregation of `round` (counted from 1). `tensors` holds every part of
    /// the target. Frozen parts go into a new frozen artefact, trained ones into the published file.
    fn refactor(
        &self,
        _config: &MethodConfig,
        _round: u32,
        _target: &Target,
        _tensors: &TensorSet,
    ) -> Result<Option<TensorSet>, MethodError> {
        Ok(None)
    }

    /// Whether the law's delta is the weighted mean of the clients' deltas.
    fn exactness(&self, config: &MethodConfig) -> Exactness;

    /// True when clients may train with ranks below the run's.
    fn mixed_ranks(&self) -> bool {
        false
    }

    /// What a private run would release.
    fn dp_support(&self) -> DpSupport;

    /// One target as a PEFT LoRA pair. By default the delta folded into two factors, which is right for every delta that
    /// is a product with a narrow middle.
    fn export(
        &self,
        config: &MethodConfig,
        target: &Target,
        rank: usize,
        tensors: &TensorSet,
    ) -> Result<PeftFactors, MethodError> {
        let folded =
            self.delta(config, rank).fold(tensors).map_err(|source| MethodError::delta(&target.name, source))?;
        Ok(PeftFactors::from_folded(&folded))
    }
}
