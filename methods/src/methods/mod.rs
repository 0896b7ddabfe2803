//! The methods this crate brings, one file each.

mod fed_sb;
mod fedit;
mod ffa_lora;
mod flora;

pub use fed_sb::FedSb;
pub use fedit::FedIt;
pub use ffa_lora::FfaLora;
pub use flora::Flora;

/// Name of the inner factor A `[r, in]` in every method of this crate.
const A: &str = "lora_A";
/// Name of the outer factor B `[out, r]`.
const B: &str = "lora_B";
