//! FedSVD: FFA-LoRA whose factors the coordinator derives anew from their product.

use super::ffa_lora::{NEW_BASIS, refactored, trained_b};
use super::{A, B};
use crate::answers::{DpSupport, Exactness};
use crate::at::At;
use crate::config::{MethodConfig, OptionKind, OptionSpec};
use crate::delta::Delta;
use crate::error::MethodError;
use crate::law::LawKind;
use crate::layout::{TensorSpec, Travel};
use crate::method::Method;
use crate::tensor::TensorSet;

const EVERY: &str = "refactor_every";

/// As [`super::FfaLora`] with a refactoring after every round (`refactor_every`): (B,
/// A) <- (U_r diag(S_r), V_r) of B.A = U S V. The product stays, A becomes orthonormal
/// and points where the training went, strongest direction first; it is post-processing
/// of what was published, so it costs no privacy.
#[derive(Debug, Clone, Copy)]
pub struct FedSvd;

impl Method for FedSvd {
    fn id(&self) -> &str {
        "fedsvd"
    }

    fn title(&self) -> &str {
        "FedSVD: averages B, then derives A and B anew by SVD"
    }

    fn paper(&self) -> &str {
        "Lee et al., FedSVD: Adaptive Orthogonalization for Private Federated Learning with LoRA, 2025, arXiv:2505.12805"
    }

    fn options(&self) -> &[OptionSpec] {
        &[OptionSpec {
            name: EVERY,
            kind: OptionKind::Count { min: 1, max: 1_000_000 },
            default: Some("1"),
            help: "derive A and B anew after every so many rounds and ship the new A",
        }]
    }

    fn layout(&self, config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        trained_b(config, at, Travel::Down)
    }

    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
    }

    fn server_steps(&self, _config: &MethodConfig) -> Result<(), String> {
        Err(format!("it {NEW_BASIS}"))
    }

    fn delta(&self, config: &MethodConfig, _at: At<'_>) -> Delta {
        Delta::product(&[B, A]).scaled(config.scale())
    }

    fn refactor(
        &self,
        config: &MethodConfig,
        at: At<'_>,
        tensors: &TensorSet,
    ) -> Result<Option<TensorSet>, MethodError> {
        refactored(config.count(EVERY).unwrap_or(1), config, at, tensors)
    }

    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }

    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }

    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Central { released: vec![B.into()] }
    }
}
