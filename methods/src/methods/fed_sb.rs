//! Fed-SB: a small square matrix R between two frozen
//! orthonormal factors is all that trains and travels.

use super::{A, B};
use crate::answers::{DpSupport, Exactness};
use crate::at::At;
use crate::config::{MethodConfig, OptionKind, OptionSpec};
use crate::delta::Delta;
use crate::dim::Dim;
use crate::error::MethodError;
use crate::init::{base_factors, base_svd, gradient_sketch, update_approximation};
use crate::law::LawKind;
use crate::layout::{Origin, Start, Target, TensorSpec, Travel};
use crate::linalg::{Matrix, Svd};
use crate::method::Method;
use crate::tensor::{Tensor, TensorSet, full_name};
use crate::warm_up::{BaseFactors, Statistics, WarmUp};

/// The trained matrix, `[r, r]`.
const R: &str = "lora_R";

const INIT: &str = "init";
const START: &str = "start";
const OVERSAMPLE: &str = "oversample";
const ETA0: &str = "eta0";
const EXAMPLES: &str = "warm_up_examples";

const SKETCH: &str = "gradient-sketch";
const BASE: &str = "base-svd";
const UPDATE: &str = "update-approximation";
const FIRST_STEP: &str = "first-step";
const ZERO: &str = "zero";

/// dW = B.R.A with B^T.B = A.A^T = I frozen; the scale is 1 (with orthonormal factors R's gradient
/// is the projected full gradient, there is nothing to tune). dW is linear in R, so the mean of the
/// R_k gives the mean of the dW_k. A client of rank r_k trains the leading [r_k, r_k] block of R,
/// between the strongest r_k directions of B and A; what lies outside of it keeps its global
/// values, and the mean stays exact.
///
/// B and A come from a warm-up round, are computed once and shipped by digest (`init`):
/// - `gradient-sketch`: singular vectors of the mean first gradient G, from linear sketches of it;
/// - `update-approximation`: singular vectors of -eta0 * sign(G), from dense gradients (LoRA-SB);
/// - `base-svd`: singular vectors of the base weight, without data.
///
/// R's start (`start`):
/// - `first-step` with `gradient-sketch`: the gradient step projected onto B and A, B^T.(-G).A^T =
///   -diag(S), as long as the sign step -eta0 * sign(G) would be, ||B.R0.A||_F = eta0 * sqrt(out *
///   in): R0 = -eta0 * sqrt(out * in) * diag(S) / ||S||_2;
/// - `first-step` with `update-approximation`: R0 = diag(S), since
///   B.diag(S).A is the truncated sign step itself;
/// - `zero`: R0 = 0. The only one for `base-svd`, which knows no gradient.
#[derive(Debug, Clone, Copy)]
pub struct FedSb;

fn init(config: &MethodConfig) -> &str {
    config.text(INIT).unwrap_or(SKETCH)
}

fn starts_with_a_step(config: &MethodConfig) -> bool {
    match config.text(START) {
        Some(start) => start == FIRST_STEP,
        None => init(config) != BASE,
    }
}

fn eta0(config: &MethodConfig) -> f64 {
    config.number(ETA0).unwrap_or(config.lr)
}

impl Method for FedSb {
    fn id(&self) -> &str {
        "fed-sb"
    }

    fn title(&self) -> &str {
        "Fed-SB: averages a small square matrix between frozen factors"
    }

    fn paper(&self) -> &str {
        "Singhal et al., Fed-SB: A Silver Bullet for Extreme Communication Efficiency and Performance in (Private) Federated LoRA Fine-Tuning, 2025, arXiv:2502.15436"
    }

    fn options(&self) -> &[OptionSpec] {
        &[
            OptionSpec {
                name: INIT,
                kind: OptionKind::Choice(&[SKETCH, BASE, UPDATE]),
                default: Some(SKETCH),
                help: "where the frozen factors come from",
            },
            OptionSpec {
                name: START,
                kind: OptionKind::Choice(&[FIRST_STEP, ZERO]),
                default: None,
                help: "where R starts; without it first-step, and zero with init = \"base-svd\"",
            },
            OptionSpec {
                name: OVERSAMPLE,
                kind: OptionKind::Count { min: 1, max: 1024 },
                default: Some("8"),
                help: "columns of the gradient sketch beyond the rank",
            },
            OptionSpec {
                name: ETA0,
                kind: OptionKind::Positive,
                default: None,
                help: "length of the first step per weight; without it train.lr",
            },
            OptionSpec {
                name: EXAMPLES,
                kind: OptionKind::Count { min: 1, max: 1_000_000 },
                default: Some("256"),
                help: "examples per client over which the first gradient is averaged",
            },
        ]
    }

    fn validate(&self, config: &MethodConfig, _targets: &[Target]) -> Result<(), MethodError> {
        let refuse = |option: &str, problem: String| {
            Err(MethodError::OptionValue { method: self.id().into(), option: option.into(), problem })
        };
        if config.alpha != config.rank as f64 {
            let problem = format!(
                "is {}, but the scale of B.R.A is 1 by construction; leave it out or set it to the rank, {}",
                config.alpha, config.rank
            );
            return refuse("alpha", problem);
        }
        if init(config) == BASE && config.text(START) == Some(FIRST_STEP) {
            return refuse(START, "is \"first-step\", but \"base-svd\" knows no gradient; it takes \"zero\"".into());
        }
        Ok(())
    }

    fn layout(&self, config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        let from = if init(config) == BASE { Origin::Base } else { Origin::WarmUp };
        let run = config.rank;
        let r = TensorSpec::trained(R, at.target.shape(run, &[Dim::Rank, Dim::Rank]), Travel::Both, Start::Artefact);
        vec![
            TensorSpec::shipped(A, at.target.shape(run, &[Dim::Rank, Dim::In]), from),
            TensorSpec::shipped(B, at.target.shape(run, &[Dim::Out, Dim::Rank]), from),
            r.with_block(&[at.rank, at.rank]),
        ]
    }

    fn starts_at_base(&self, config: &MethodConfig) -> bool {
        !starts_with_a_step(config)
    }

    fn warm_up(&self, config: &MethodConfig, at: At<'_>) -> Vec<WarmUp> {
        let examples = config.count(EXAMPLES).and_then(|count| u32::try_from(count).ok()).unwrap_or(256);
        vec![match init(config) {
            BASE => base_factors::probe(BaseFactors::SvdHead, at.target, config.rank),
            UPDATE => update_approximation::warm_up(at.target, examples),
            _ => {
                let oversample = config.count(OVERSAMPLE).and_then(|count| usize::try_from(count).ok()).unwrap_or(8);
                gradient_sketch::warm_up(at.target, config.rank, oversample, examples)
            }
        }]
    }

    fn finish_warm_up(
        &self,
        config: &MethodConfig,
        at: At<'_>,
        statistics: &Statistics<'_>,
    ) -> Result<TensorSet, MethodError> {
        let target = at.target;
        let statistic = statistics.of(target)?;
        let part = |name: &str| {
            statistic.get(name).map(Tensor::to_matrix).ok_or_else(|| MethodError::Missing {
                tensor: full_name(&target.name, name),
                place: "the warm-up's statistic".into(),
            })
        };
        let failed = |source| MethodError::linalg(&target.name, source);
        let (svd, step) = match init(config) {
            BASE => {
                let s = part(base_svd::S)?.data().to_vec();
                (Svd { u: part(base_svd::U)?, s, v: part(base_svd::V)? }, vec![0.0; config.rank])
            }
            UPDATE => {
                let gradient = part(update_approximation::DENSE)?;
                let svd = update_approximation::first_step(&gradient, eta0(config), config.rank).map_err(failed)?;
                let step = svd.s.clone();
                (svd, step)
            }
            _ => {
                let (y, z) = (part(gradient_sketch::P)?, part(gradient_sketch::Q)?);
                let svd =
                    gradient_sketch::reconstruct(&y, &z, &part(gradient_sketch::PSI)?, config.rank).map_err(failed)?;
                let length = svd.s.iter().map(|s| s * s).sum::<f64>().sqrt();
                let wanted = eta0(config) * ((target.out * target.inp) as f64).sqrt();
                // A target that no gradient reaches gets no step.
                let factor = if length > 0.0 { -wanted / length } else { 0.0 };
                let step = svd.s.iter().map(|s| factor * s).collect();
                (svd, step)
            }
        };
        let r =
            if starts_with_a_step(config) { Matrix::diagonal(&step) } else { Matrix::zeros(config.rank, config.rank) };
        Ok(TensorSet::from([
            (A.to_owned(), Tensor::from_matrix(&svd.v)),
            (B.to_owned(), Tensor::from_matrix(&svd.u)),
            (R.to_owned(), Tensor::from_matrix(&r)),
        ]))
    }

    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
    }

    fn delta(&self, _config: &MethodConfig, _at: At<'_>) -> Delta {
        Delta::product(&[B, R, A])
    }

    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }

    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }

    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Central { released: vec![R.into()] }
    }
}
