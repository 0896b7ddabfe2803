//! FFA-LoRA: A is frozen, only B is trained and averaged; optionally refactored as in FedSVD.

use super::{A, B};
use crate::answers::{DpSupport, Exactness};
use crate::at::At;
use crate::config::{MethodConfig, OptionKind, OptionSpec};
use crate::delta::Delta;
use crate::dim::Dim;
use crate::error::MethodError;
use crate::init::seeded::kaiming_bound;
use crate::law::LawKind;
use crate::layout::{Start, TensorSpec, Travel};
use crate::linalg::{Matrix, truncated_svd_of_product};
use crate::method::Method;
use crate::tensor::{Tensor, TensorSet};

const REFACTOR_EVERY: &str = "refactor_every";

/// dW = (alpha / r) B.A with A from the run's seed. dW is linear in B, so the mean of the B_k gives
/// the mean of the dW_k. A client of rank r_k trains the first r_k columns of B; the others keep
/// their global values, and the mean stays exact.
///
/// With `refactor_every = p` the coordinator replaces (B, A) after every p-th round by (U_r
/// diag(S_r), V_r) of B.A = U S V, by QR of both factors and an SVD of the small core: the product
/// stays, A becomes orthonormal and points where the training went (FedSVD, Lee et al. 2025). The
/// new A is shipped as a frozen artefact.
#[derive(Debug, Clone, Copy)]
pub struct FfaLora;

fn refactor_every(config: &MethodConfig) -> u64 {
    config.count(REFACTOR_EVERY).unwrap_or(0)
}

/// Why no server optimiser can follow a refactoring.
pub(super) const NEW_BASIS: &str =
    "turns the factors into another basis, in which the optimiser's moments mean nothing";

/// A from the seed, and B of which a client trains the leading columns.
pub(super) fn trained_b(config: &MethodConfig, at: At<'_>, travel_of_a: Travel) -> Vec<TensorSpec> {
    let target = at.target;
    let mut a = TensorSpec::seeded(A, target.shape(config.rank, &[Dim::Rank, Dim::In]), kaiming_bound(target.inp));
    a.travel = travel_of_a;
    let b = TensorSpec::trained(B, target.shape(config.rank, &[Dim::Out, Dim::Rank]), Travel::Both, Start::Zero);
    vec![a, b.with_block(&[target.out, at.rank])]
}

/// After every `every`-th round (0 = never): (B, A) <- (U_r diag(S_r), V_r) of B.A = U S V.
pub(super) fn refactored(
    every: u64,
    config: &MethodConfig,
    at: At<'_>,
    tensors: &TensorSet,
) -> Result<Option<TensorSet>, MethodError> {
    let is_due = |round: u32| every > 0 && u64::from(round).is_multiple_of(every);
    if !at.round.is_some_and(is_due) {
        return Ok(None);
    }
    let (Some(b), Some(a)) = (tensors.get(B), tensors.get(A)) else {
        return Ok(None);
    };
    let svd = truncated_svd_of_product(&b.to_matrix(), &a.to_matrix(), config.rank)
        .map_err(|source| MethodError::linalg(&at.target.name, source))?;
    let new_b = svd.u.times(&Matrix::diagonal(&svd.s));
    Ok(Some(TensorSet::from([
        (A.to_owned(), Tensor::from_matrix(&svd.v)),
        (B.to_owned(), Tensor::from_matrix(&new_b)),
    ])))
}

impl Method for FfaLora {
    fn id(&self) -> &str {
        "ffa-lora"
    }

    fn title(&self) -> &str {
        "FFA-LoRA: A frozen from the seed, averages B"
    }

    fn paper(&self) -> &str {
        "Sun et al., Improving LoRA in Privacy-preserving Federated Learning, ICLR 2024, arXiv:2403.12313"
    }

    fn options(&self) -> &[OptionSpec] {
        &[OptionSpec {
            name: REFACTOR_EVERY,
            kind: OptionKind::Count { min: 0, max: 1_000_000 },
            default: Some("0"),
            help: "re-derive A and B from B.A by QR and SVD after every so many rounds and ship the new A; 0 = never",
        }]
    }

    fn layout(&self, config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        let travel = if refactor_every(config) > 0 { Travel::Down } else { Travel::Never };
        trained_b(config, at, travel)
    }

    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
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
        refactored(refactor_every(config), config, at, tensors)
    }

    fn server_steps(&self, config: &MethodConfig) -> Result<(), String> {
        if refactor_every(config) == 0 { Ok(()) } else { Err(format!("`{REFACTOR_EVERY}` {NEW_BASIS}")) }
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
