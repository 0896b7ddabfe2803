//! RoLoRA: the two factors take turns, so that each round's average is exact.

use super::{A, B, trained_pair};
use crate::answers::{DpSupport, Exactness};
use crate::at::At;
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::law::LawKind;
use crate::layout::{TensorSpec, Travel};
use crate::method::Method;

/// dW = (alpha / r) B.A; in odd rounds only B trains and travels up, in even ones only A (B begins:
/// while it is zero, A has no gradient). dW is linear in the one that moves, so the mean of the
/// factors gives the mean of the dW_k. A client of rank r_k trains the leading r_k columns of B or
/// rows of A; the others keep their global values, and the mean stays exact.
#[derive(Debug, Clone, Copy)]
pub struct RoLora;

impl Method for RoLora {
    fn id(&self) -> &str {
        "rolora"
    }

    fn title(&self) -> &str {
        "RoLoRA: trains and averages B and A in turn"
    }

    fn paper(&self) -> &str {
        "Chen et al., Robust Federated Finetuning of LLMs via Alternating Optimization of LoRA, 2025, arXiv:2502.01755"
    }

    fn layout(&self, config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        let block = |spec: TensorSpec| match spec.part.as_str() {
            A => spec.with_block(&[at.rank, at.target.inp]),
            _ => spec.with_block(&[at.target.out, at.rank]),
        };
        trained_pair(at.target, config.rank, Travel::Both).into_iter().map(block).collect()
    }

    fn trains_in(&self, _config: &MethodConfig, at: At<'_>, part: &str) -> bool {
        let is_even = at.round.is_some_and(|round| round.is_multiple_of(2));
        part == if is_even { A } else { B }
    }

    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
    }

    fn server_steps(&self, _config: &MethodConfig) -> Result<(), String> {
        Err("its factors take turns, so the optimiser's moments would be two rounds old and of another direction"
            .into())
    }

    fn delta(&self, config: &MethodConfig, _at: At<'_>) -> Delta {
        Delta::product(&[B, A]).scaled(config.scale())
    }

    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }

    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }

    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Central { released: vec![A.into(), B.into()] }
    }
}
