//! Zero padding: factors of different ranks are filled up with
//! zeros and averaged; the baseline for mixed ranks.

use super::{A, B, trained_pair};
use crate::answers::{DpSupport, Exactness};
use crate::at::At;
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::law::LawKind;
use crate::layout::{TensorSpec, Travel};
use crate::method::Method;

/// dW_k = (alpha / r) B_k.A_k with any rank r_k up to the run's r. Rows of A_k and columns of B_k
/// beyond r_k count as zeros in the mean, so they shrink in every round in which a client of a
/// lower rank takes part. A client starts from the leading r_k rows and columns of what was
/// published; the scale is the run's for all, since all share one pair of factors. Of HetLoRA (Cho
/// et al.) this is the plain form, without sparsity weights and self-pruning.
#[derive(Debug, Clone, Copy)]
pub struct ZeroPad;

impl Method for ZeroPad {
    fn id(&self) -> &str {
        "zero-pad"
    }

    fn title(&self) -> &str {
        "Zero padding: averages both factors, short ones filled with zeros (baseline)"
    }

    fn paper(&self) -> &str {
        "Cho et al., Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models, EMNLP 2024, arXiv:2401.06432"
    }

    fn layout(&self, _config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        trained_pair(at.target, at.rank, Travel::Both)
    }

    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Padded
    }

    fn delta(&self, config: &MethodConfig, _at: At<'_>) -> Delta {
        Delta::product(&[B, A]).scaled(config.scale())
    }

    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Approximate(
            "the product of averaged factors is not the average of the products, and zeros count in the averages"
                .into(),
        )
    }

    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }

    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Central { released: vec![A.into(), B.into()] }
    }
}
