//! The methods this crate brings, one file each.

mod fed_sb;
mod fedex_lora;
mod fedit;
mod fedsvd;
mod ffa_lora;
mod flexlora;
mod flora;
mod miss;
mod rolora;
mod zero_pad;

pub use fed_sb::FedSb;
pub use fedex_lora::FedExLora;
pub use fedit::FedIt;
pub use fedsvd::FedSvd;
pub use ffa_lora::FfaLora;
pub use flexlora::FlexLora;
pub use flora::Flora;
pub use miss::Miss;
pub use rolora::RoLora;
pub use zero_pad::ZeroPad;

use crate::dim::Dim;
use crate::init::seeded::kaiming_bound;
use crate::layout::{Start, Target, TensorSpec, Travel};

/// Name of the inner factor A `[r, in]` in every method of this crate.
const A: &str = "lora_A";
/// Name of the outer factor B `[out, r]`.
const B: &str = "lora_B";

/// LoRA's two factors, both trained: A as PEFT draws it, B zero.
fn trained_pair(target: &Target, rank: usize, travel: Travel) -> Vec<TensorSpec> {
    let start = Start::SeededUniform { bound: kaiming_bound(target.inp) };
    vec![
        TensorSpec::trained(A, target.shape(rank, &[Dim::Rank, Dim::In]), travel, start),
        TensorSpec::trained(B, target.shape(rank, &[Dim::Out, Dim::Rank]), travel, Start::Zero),
    ]
}
