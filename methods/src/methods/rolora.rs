//! RoLoRA: the two factors take turns, so that each round's average is exact.

use super::{A, B, trained_pair};
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::law::LawKind;
use crate::layout::{Target, TensorSpec, Travel};
use crate::method::{DpSupport, Exactness, Method};

/// dW = (alpha / r) B.A; in odd rounds only B trains and travels up, in even ones only A (B begins: while it is zero, A has
/// no gradient). dW is linear in the one that moves, so the mean of the factors gives the mean of the dW_k. A client of rank
/// r_k trains the leading r_k columns of B or rows of A; the others keep their global values, and the mean stays exact.
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

    fn layout(&self, config: &MethodConfig, target: &Target, rank: usize) -> Vec<TensorSpec> {
        let block = |spec: TensorSpec| match spec.part.as_str() {
            A => spec.with_block(&[rank, target.inp]),
            _ => spec.with_block(&[target.out, rank]),
        };
        trained_pair(target, config.rank, Travel::Both).into_iter().map(block).collect()
    }

    fn trains_in(&self, _config: &MethodConfig, round: u32, part: &str) -> bool {
        part == if round.is_multiple_of(2) { A } else { B }
    }

    fn law(&self) -> LawKind {
        LawKind::Mean
    }

    fn server_steps(&self, _config: &MethodConfig) -> Result<(), String> {
        Err("its factors take turns, so the optimiser's moments would be two rounds old and of another direction"
            .into())
    }

    fn delta(&self, config: &MethodConfig, _rank: usize) -> Delta {
        Delta::product(&[B, A]).scaled(config.scale())
    }

    fn exactness(&self, _config: &MethodConfig) -> Exactness {
        Exactness::Exact
    }

    fn mixed_ranks(&self) -> bool {
        true
    }

    fn dp_support(&self) -> DpSupport {
        DpSupport::Central { released: vec![A.into(), B.into()] }
    }
}
