//! One target's change as the LoRA pair that PEFT knows.

use crate::delta::Folded;
use crate::linalg::Matrix;

/// One target as a LoRA pair, dW = (alpha / r) b.a.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftFactors {
    /// Inner factor, `[r, in]`.
    pub a: Matrix,
    /// Outer factor, `[out, r]`.
    pub b: Matrix,
    /// LoRA's alpha.
    pub alpha: f64,
}

impl PeftFactors {
    /// From two factors and a scale: alpha = scale * r.
    pub fn from_folded(folded: &Folded) -> Self {
        let alpha = folded.scale * folded.rank() as f64;
        Self { a: folded.right.clone(), b: folded.left.clone(), alpha }
    }

    /// The rank r.
    pub fn rank(&self) -> usize {
        self.a.rows()
    }

    pub(crate) fn scale(&self) -> f64 {
        self.alpha / self.rank() as f64
    }

    /// The inner factor with the scale in it, so that factors of different scales can stand side by
    /// side.
    pub(crate) fn scaled_a(&self) -> Matrix {
        self.a.clone().scaled(self.scale())
    }

    pub(crate) fn dense(&self) -> Matrix {
        self.b.times(&self.a).scaled(self.scale())
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.a.norm() == 0.0 || self.b.norm() == 0.0
    }
}
