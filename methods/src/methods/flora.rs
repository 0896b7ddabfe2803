//! FLoRA: the clients' factors are stacked, not averaged.

use super::{A, B, trained_pair};
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::law::LawKind;
use crate::layout::{Target, TensorSpec, Travel};
use crate::method::{DpSupport, Exactness, Method};

/// dW_k = (alpha / r_k) B_k.A_k with any rank r_k up to the run's; the scale s_k = alpha / r_k is the client's. The published
/// stack [B_1 ... B_K].[w_1 s_1 A_1; ...; w_K s_K A_K] is merged into the base by everybody, and the next round starts from
/// a fresh adapter: A drawn from (seed, round, client), B zero.
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

    fn layout(&self, _config: &MethodConfig, target: &Target, rank: usize) -> Vec<TensorSpec> {
        trained_pair(target, rank, Travel::Up)
    }

    fn fresh_each_round(&self) -> bool {
        true
    }

    fn law(&self) -> LawKind {
        LawKind::Stack
    }

    fn delta(&self, config: &MethodConfig, rank: usize) -> Delta {
        Delta::product(&[B, A]).scaled(config.scale_at(rank))
    }

    fn exactness(&self, _config: &MethodConfig) -> Exactness {
        Exactness::Exact
    }

    fn mixed_ranks(&self) -> bool {
        true
    }

    fn dp_support(&self) -> DpSupport {
        DpSupport::LocalOnly(
            "every client's own factors are redistributed in the stack, so noise on the sum hides nobody".into(),
        )
    }
}
