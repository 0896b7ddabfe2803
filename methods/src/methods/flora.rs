//! FLoRA: the clients' factors are stacked, not averaged.

use super::{A, B, trained_pair};
use crate::answers::{DpSupport, Exactness};
use crate::at::At;
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::law::LawKind;
use crate::layout::{TensorSpec, Travel};
use crate::method::Method;

/// dW_k = (alpha / r_k) B_k.A_k with any rank r_k up to the run's; the scale s_k = alpha
/// / r_k is the client's. The published stack [B_1 ... B_K].[w_1 s_1 A_1; ...; w_K s_K
/// A_K] is merged into the base by everybody, and the next round starts from a fresh
/// adapter: A drawn from (seed, round, client), B zero.
#[derive(Debug, Clone, Copy)]
pub struct Flora;

impl Method for Flora {
    fn id(&self) -> &str {
        "flora"
    }

    fn title(&self) -> &str {
        "FLoRA: stacks the clients' factors, ranks may differ"
    }

    fn paper(&self) -> &str {
        "Wang et al., FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank Adaptations, NeurIPS 2024, arXiv:2409.05976"
    }

    fn layout(&self, _config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        trained_pair(at.target, at.rank, Travel::Up)
    }

    fn fresh_each_round(&self, _config: &MethodConfig) -> bool {
        true
    }

    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Stack
    }

    fn delta(&self, config: &MethodConfig, at: At<'_>) -> Delta {
        Delta::product(&[B, A]).scaled(config.scale_at(at.rank))
    }

    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }

    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }

    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::LocalOnly(
            "every client's own factors are redistributed in the stack, so noise on the sum hides nobody".into(),
        )
    }
}
