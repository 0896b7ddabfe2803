//! LoRA-SB's own start (Ponkshe et al. 2024): the truncated SVD of the first full fine-tuning step.
//!
//! AdamW's first step is close to -eta0 * sign(G). Clients upload the dense gradient of the mean
//! loss once; the coordinator averages, takes the sign (sign 0 = 0) and decomposes. This shows the
//! coordinator full gradients; the gradient sketch does not.

use crate::delta::Delta;
use crate::dim::Dim;
use crate::law::LawKind;
use crate::layout::{Start, Target, TensorSpec, Travel};
use crate::linalg::{LinalgError, Matrix, Svd, truncated_svd};
use crate::warm_up::{Statistic, WarmUp};

/// The dense probe, `[out, in]`; its gradient is G.
pub const DENSE: &str = "dense";

/// The warm-up that collects dense gradients.
pub fn warm_up(target: &Target, examples: u32) -> WarmUp {
    WarmUp {
        statistic: Statistic::Gradient,
        examples,
        layout: vec![TensorSpec::trained(DENSE, target.shape(0, &[Dim::Out, Dim::In]), Travel::Up, Start::Zero)],
        delta: Delta::mat(DENSE),
        law: LawKind::Mean,
    }
}

/// The leading `rank` triplets of -eta0 * sign(gradient), gradient `[out, in]`.
///
/// # Errors
/// As [`truncated_svd`]: `rank` is out of range, the gradient holds NaN, or eta0 is not finite.
pub fn first_step(gradient: &Matrix, eta0: f64, rank: usize) -> Result<Svd, LinalgError> {
    let step = gradient.data().iter().map(|&g| if g == 0.0 { 0.0 } else { -eta0 * g.signum() }).collect();
    truncated_svd(&Matrix::new(gradient.rows(), gradient.cols(), step), rank)
}
