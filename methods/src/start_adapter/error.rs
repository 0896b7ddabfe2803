//! Why an adapter cannot be what a run starts from.

use crate::file::FileError;

/// Why an adapter cannot be what a run starts from.
#[derive(Debug, thiserror::Error)]
pub enum StartAdapterError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not of the form that a run starts from.
    #[error("the adapter to start from is not in the form it should have: tensor `{tensor}`: {problem}")]
    Form {
        /// Which tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It changes a layer that the base does not have.
    #[error("the adapter changes `{layer}`, but base model `{base}` has no such linear layer")]
    NoLayer {
        /// The layer.
        layer: String,
        /// The base.
        base: String,
    },
    /// It changes a layer of another size.
    #[error("the adapter changes `{layer}` as {got:?}, but in base model `{base}` that weight is {expected:?}")]
    Shape {
        /// The layer.
        layer: String,
        /// The base.
        base: String,
        /// Output and input features of the base.
        expected: [usize; 2],
        /// The same of the adapter.
        got: [usize; 2],
    },
    /// Two of its modules are one layer of the base.
    #[error("the adapter changes `{0}` twice")]
    Twice(String),
    /// It holds a number that is none.
    #[error("the adapter's tensor `{tensor}` holds {value}")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The number.
        value: f32,
    },
    /// Its classifier head does not fit.
    #[error("the adapter's classifier head does not fit: {0}")]
    Head(String),
}

impl StartAdapterError {
    /// How to fix it, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoLayer { .. } | Self::Shape { .. } => {
                Some("`rondo base show` lists the base's layers; an adapter only fits the base it was trained on")
            }
            Self::Head(_) => Some(
                "to start with a fresh head, take the adapter's head away: rondo_head.safetensors in a copy of the folder",
            ),
            Self::NotFinite { .. } => Some("its training diverged; take an earlier adapter"),
            Self::File(_) | Self::Form { .. } | Self::Twice(_) => None,
        }
    }
}
