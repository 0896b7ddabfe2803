//! The questions a method answers. Everything else (wire, training,
//! aggregation, export, tests) follows from them.
//!
//! A question that a later kind of method needs is added as an answer
//! with a default; those here keep their signatures.

use crate::answers::{DpSupport, Exactness, Publication};
use crate::at::At;
use crate::config::{MethodConfig, OptionSpec};
use crate::delta::Delta;
use crate::error::MethodError;
use crate::factors::PeftFactors;
use crate::law::LawKind;
use crate::layout::{Target, TensorSpec};
use crate::native::Native;
use crate::tensor::{Tensor, TensorSet, fits};
use crate::warm_up::{Statistics, WarmUp};

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

    /// Refuses combinations that make no sense. Kinds and ranges of
    /// options, ranks and targets were checked before.
    fn validate(&self, _config: &MethodConfig, _targets: &[Target]) -> Result<(), MethodError> {
        Ok(())
    }

    /// The tensors of one target for a client of this rank. Either smaller tensors, or the run's
    /// with a leading block that trains ([`TensorSpec::block`]): where all clients share one basis.
    /// Names, shapes and sizes of blocks may differ between targets.
    fn layout(&self, config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec>;

    /// Whether a trained part of a target trains in this round; `at.round` is always
    /// given. One that rests keeps its published value, and does not travel up. Without
    /// a client the question is whether it trains for any of them. In every round
    /// something must train in one of the targets at least.
    fn trains_in(&self, _config: &MethodConfig, _at: At<'_>, _part: &str) -> bool {
        true
    }

    /// What a client of a lower rank starts from: the published tensors of a target, at the run's
    /// rank, cut to its own layout. By default the leading rows and columns of each.
    fn narrowed(&self, config: &MethodConfig, at: At<'_>, published: TensorSet) -> TensorSet {
        let layout = self.layout(config, at);
        let cut = |(part, tensor): (String, Tensor)| match layout.iter().find(|spec| spec.part == part) {
            Some(spec) if fits(&spec.shape, &tensor.shape) => (part, tensor.leading(&spec.shape)),
            _ => (part, tensor),
        };
        published.into_iter().map(cut).collect()
    }

    /// True when trained and seeded tensors start anew in
    /// every round, seeded by (seed, round, client).
    fn fresh_each_round(&self, _config: &MethodConfig) -> bool {
        false
    }

    /// True when the adapter changes nothing before the first training step.
    fn starts_at_base(&self, _config: &MethodConfig) -> bool {
        true
    }

    /// The statistics needed before the first training round; none for
    /// no warm-up. Either for all targets or for none.
    fn warm_up(&self, _config: &MethodConfig, _at: At<'_>) -> Vec<WarmUp> {
        Vec::new()
    }

    /// Turns the aggregated statistics into every tensor of a target's layout whose start is
    /// [`crate::Start::Artefact`], by part name. The statistics of the other targets are at hand,
    /// so that a budget can be shared among them.
    fn finish_warm_up(
        &self,
        _config: &MethodConfig,
        _at: At<'_>,
        _statistics: &Statistics<'_>,
    ) -> Result<TensorSet, MethodError> {
        Ok(TensorSet::new())
    }

    /// How trained tensors become one.
    fn law(&self, config: &MethodConfig) -> LawKind;

    /// What becomes of a published aggregate.
    fn publication(&self, config: &MethodConfig) -> Publication {
        if self.law(config).merged().is_some() { Publication::Accumulate } else { Publication::Replace }
    }

    /// Whether a server optimiser may step from the last published tensors
    /// towards the law's, moments in hand; if not, why. By default where the
    /// law averages tensors that keep their meaning.
    fn server_steps(&self, config: &MethodConfig) -> Result<(), String> {
        self.law(config).server_steps().map_err(str::to_owned)
    }

    /// The change of the weight, `[out, in]`, over the layout's part names.
    fn delta(&self, config: &MethodConfig, at: At<'_>) -> Delta;

    /// A constant change of the weight, `[out, in]`, over frozen parts of the layout; its sign is
    /// its own. It is added to the base once per run, behind the adapter that the run starts from.
    /// Laws, folding and exactness never see it. Asked for once per target, without round and
    /// client. A method that starts from factors which change the weight subtracts them here.
    fn offset(&self, _config: &MethodConfig, _at: At<'_>) -> Option<Delta> {
        None
    }

    /// New tensors with the same delta, after the aggregation of `at.round`, which is always given.
    /// `tensors` holds every part of the target. Frozen parts go into a new frozen artefact,
    /// trained ones into the published file; parts of the offset must stay as they are.
    fn refactor(
        &self,
        _config: &MethodConfig,
        _at: At<'_>,
        _tensors: &TensorSet,
    ) -> Result<Option<TensorSet>, MethodError> {
        Ok(None)
    }

    /// Whether the law's delta is the weighted mean of the clients' deltas, in this round (from 1).
    fn exactness(&self, config: &MethodConfig, round: u32) -> Exactness;

    /// True when clients may train with ranks below the run's.
    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        false
    }

    /// What a private run would release. [`DpSupport::Central`] is for
    /// methods whose answers do not depend on the client.
    fn dp_support(&self, config: &MethodConfig) -> DpSupport;

    /// Whether the adapter can be written as plain LoRA
    /// pairs; if not, why, and what to use instead.
    fn plain_lora(&self, _config: &MethodConfig) -> Result<(), String> {
        Ok(())
    }

    /// One target as a PEFT LoRA pair, without the offset. By default the delta folded into two
    /// factors, which is right for every delta that is a product with a narrow middle.
    fn export(&self, config: &MethodConfig, at: At<'_>, tensors: &TensorSet) -> Result<PeftFactors, MethodError> {
        let folded =
            self.delta(config, at).fold(tensors).map_err(|source| MethodError::delta(&at.target.name, source))?;
        Ok(PeftFactors::from_folded(&folded))
    }

    /// The adapter as PEFT's own type for this method;
    /// if there is none, why, and what to use instead.
    fn native(&self, config: &MethodConfig) -> Result<Native, String> {
        let instead = if self.plain_lora(config).is_ok() { "--format peft" } else { "--format merged" };
        Err(format!("PEFT has no type of its own for method `{}`; use {instead}", self.id()))
    }

    /// Whether the change can be added to the base's weights; if not, why, and what to use instead.
    fn merges(&self, _config: &MethodConfig) -> Result<(), String> {
        Ok(())
    }
}
