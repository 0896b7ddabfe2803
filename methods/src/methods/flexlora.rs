//! FlexLoRA: the best approximation of the mean change at the run's rank; ranks may differ.

use super::{A, B, trained_pair};
use crate::answers::{DpSupport, Exactness};
use crate::at::At;
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::law::LawKind;
use crate::layout::{TensorSpec, Travel};
use crate::method::Method;
use crate::tensor::TensorSet;

/// dW_k = (alpha / r_k) B_k.A_k with any rank r_k up to the run's. M = sum_k w_k dW_k = U S V is
/// published at the run's rank, A = V_r and B = U_r diag(S_r) / (alpha / r). A client of rank r_k
/// starts from the best approximation of that at its own rank: the leading rows of A, and the
/// leading columns of B times r_k / r, since its own scale is larger.
#[derive(Debug, Clone, Copy)]
pub struct FlexLora;

impl Method for FlexLora {
    fn id(&self) -> &str {
        "flexlora"
    }

    fn title(&self) -> &str {
        "FlexLoRA: SVD of the mean change, cut to every client's rank"
    }

    fn paper(&self) -> &str {
        "Bai et al., Federated Fine-tuning of Large Language Models under Heterogeneous Tasks and Client Resources, NeurIPS 2024, arXiv:2402.11505"
    }

    fn layout(&self, _config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        trained_pair(at.target, at.rank, Travel::Both)
    }

    fn narrowed(&self, config: &MethodConfig, at: At<'_>, published: TensorSet) -> TensorSet {
        let own = config.scale_at(at.rank);
        let of_run = config.scale();
        let cut = |(part, tensor): (String, crate::tensor::Tensor)| {
            let cut = match part.as_str() {
                A => tensor.leading(&[at.rank, at.target.inp]),
                B => {
                    let mut b = tensor.leading(&[at.target.out, at.rank]);
                    b.data.iter_mut().for_each(|x| *x = (f64::from(*x) * of_run / own) as f32);
                    b
                }
                _ => tensor,
            };
            (part, cut)
        };
        published.into_iter().map(cut).collect()
    }

    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Truncate
    }

    fn delta(&self, config: &MethodConfig, at: At<'_>) -> Delta {
        Delta::product(&[B, A]).scaled(config.scale_at(at.rank))
    }

    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Approximate("the mean change is cut to the run's rank; of that rank it is the best there is".into())
    }

    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }

    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::LocalOnly("the stack of every client's own factors is decomposed, not a noisy sum".into())
    }
}
