//! The functions between the two linear layers of a feed-forward block.

use tch::Tensor;

use crate::error::TrainerError;

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Activation {
    /// `x * Phi(x)` with the exact normal distribution function.
    Gelu,
    /// The same with the tanh approximation (Hendrycks and Gimpel 2016).
    GeluTanh,
    /// `max(x, 0)`
    Relu,
}

impl Activation {
    /// The names that are understood, for messages.
    pub(super) const SUPPORTED: &'static str = "\"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\", \"relu\"";

    /// By its name in config.json.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            _ => None,
        }
    }

    /// Number by number.
    pub(super) fn forward(self, x: &Tensor) -> Result<Tensor, TrainerError> {
        Ok(match self {
            Self::Gelu => x.f_gelu("none")?,
            Self::GeluTanh => x.f_gelu("tanh")?,
            Self::Relu => x.f_relu()?,
        })
    }
}
