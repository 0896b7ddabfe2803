//! MiSS: one trained matrix D, whose rows are shared out over the
//! inputs by their number; nothing else is needed.

use serde_json::json;

use crate::answers::{DpSupport, Exactness};
use crate::at::At;
use crate::config::MethodConfig;
use crate::delta::Delta;
use crate::dim::Dim;
use crate::error::MethodError;
use crate::law::LawKind;
use crate::layout::{Start, Target, TensorSpec, Travel};
use crate::method::Method;
use crate::native::{Native, OffsetBy};

/// The trained matrix, `[r, out]`.
const D: &str = "miss_D";
/// The tiling, `[r, in]`.
const E: &str = "miss_E";

/// dW = D^T.E, where E repeats the identity: `E[k, j]` is 1 where j mod r = k, so dW[i, j] = D[j
/// mod r, i]. The last repetition is cut where r does not divide the inputs, as PEFT does by
/// filling x up with zeros. D starts at zero; the scale is 1, there is no alpha. E follows from the
/// shape: nobody draws, ships or stores it.
///
/// dW is linear in D, so the mean of the D_k gives the mean of the dW_k. A client of rank r_k
/// trains the first r_k rows of D, which are those of the inputs with j mod r < r_k; the others
/// keep their global values, and the mean stays exact.
#[derive(Debug, Clone, Copy)]
pub struct Miss;

impl Method for Miss {
    fn id(&self) -> &str {
        "miss"
    }

    fn title(&self) -> &str {
        "MiSS: averages one matrix that is repeated over the inputs"
    }

    fn paper(&self) -> &str {
        "Kang and Yin, MiSS: Revisiting the Trade-off in LoRA with an Efficient Shard-Sharing Structure, ICLR 2026, arXiv:2409.15371"
    }

    fn validate(&self, config: &MethodConfig, _targets: &[Target]) -> Result<(), MethodError> {
        if config.alpha == config.rank as f64 {
            return Ok(());
        }
        let (alpha, rank) = (config.alpha, config.rank);
        Err(MethodError::OptionValue {
            method: self.id().into(),
            option: "alpha".into(),
            problem: format!("is {alpha}, but D^T.E has no scale; leave it out or set it to the rank, {rank}"),
        })
    }

    fn layout(&self, config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        let (target, rank) = (at.target, config.rank);
        let d = TensorSpec::trained(D, target.shape(rank, &[Dim::Rank, Dim::Out]), Travel::Both, Start::Zero);
        let e = TensorSpec::frozen(E, target.shape(rank, &[Dim::Rank, Dim::In]), Start::Tile { period: rank });
        vec![d.with_block(&[at.rank, target.out]), e]
    }

    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
    }

    fn delta(&self, _config: &MethodConfig, _at: At<'_>) -> Delta {
        Delta::Product(vec![Delta::mat(D).transposed(), Delta::mat(E)])
    }

    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }

    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }

    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Central { released: vec![D.into()] }
    }

    fn native(&self, config: &MethodConfig) -> Result<Native, String> {
        let settings = [
            ("r", json!(config.rank)),
            ("init_weights", json!(true)),
            ("miss_dropout", json!(0.0)),
            ("bias", json!("none")),
        ];
        Ok(Native {
            peft_type: "MISS",
            settings: settings.map(|(key, value)| (key.to_owned(), value)).into_iter().collect(),
            tensors: vec![("miss_block", D)],
            offset: OffsetBy::Nobody,
        })
    }
}
