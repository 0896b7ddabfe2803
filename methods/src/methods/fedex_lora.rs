//! FedEx-LoRA: averages both factors and adds what the averages lack to the base.

use super::{A, B, trained_pair};
use crate::answers::{DpSupport, Exactness};
use crate::at::At;
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::law::LawKind;
use crate::layout::{TensorSpec, Travel};
use crate::method::Method;

/// dW = (alpha / r) B.A; A and B are trained and averaged as in FedIT. The residual E = (alpha / r)
/// (sum_k w_k B_k.A_k - B.A) is published beside them as factors of rank up to (K - 1) r, and
/// everybody merges it into the base: W0 + E + dW is then the mean of the clients' models exactly,
/// and training goes on from the averages.
#[derive(Debug, Clone, Copy)]
pub struct FedExLora;

impl Method for FedExLora {
    fn id(&self) -> &str {
        "fedex-lora"
    }

    fn title(&self) -> &str {
        "FedEx-LoRA: averages both factors, merges the residual into the base"
    }

    fn paper(&self) -> &str {
        "Singhal et al., FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of Foundation Models, ACL 2025, arXiv:2410.09432"
    }

    fn layout(&self, _config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        trained_pair(at.target, at.rank, Travel::Both)
    }

    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Residual
    }

    fn delta(&self, config: &MethodConfig, _at: At<'_>) -> Delta {
        Delta::product(&[B, A]).scaled(config.scale())
    }

    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }

    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::LocalOnly(
            "the residual is made of every client's own factors, so noise on the sum hides nobody".into(),
        )
    }
}
