//! FedIT: federated averaging of both LoRA factors, the baseline.

use super::{A, B, trained_pair};
use crate::answers::{DpSupport, Exactness};
use crate::at::At;
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::law::LawKind;
use crate::layout::{TensorSpec, Travel};
use crate::method::Method;

/// dW = (alpha / r) B.A; A and B are trained and averaged each for itself. The
/// product of the means is not the mean of the products: what is lost is sum_k
/// w_k (B_k - B)(A_k - A), of rank up to (K - 1) r.
#[derive(Debug, Clone, Copy)]
pub struct FedIt;

impl Method for FedIt {
    fn id(&self) -> &str {
        "fedit"
    }

    fn title(&self) -> &str {
        "FedIT: averages both LoRA factors (baseline)"
    }

    fn paper(&self) -> &str {
        "Zhang et al., Towards Building the Federated GPT: Federated Instruction Tuning, ICASSP 2024, arXiv:2305.05644"
    }

    fn layout(&self, _config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        trained_pair(at.target, at.rank, Travel::Both)
    }

    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
    }

    fn delta(&self, config: &MethodConfig, _at: At<'_>) -> Delta {
        Delta::product(&[B, A]).scaled(config.scale())
    }

    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Approximate("the product of averaged factors is not the average of the products".into())
    }

    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Central { released: vec![A.into(), B.into()] }
    }
}
