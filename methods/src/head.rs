//! The classifier head's tensors: their names on the wire and their shape.

/// Name of the head's weight, `[labels, hidden]`.
pub const HEAD_WEIGHT: &str = "head.weight";
/// Name of the head's bias, `[labels]`.
pub const HEAD_BIAS: &str = "head.bias";

/// The classifier head: `head.weight` `[labels, hidden]`, `head.bias` `[labels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// Count of labels.
    pub labels: usize,
    /// Width of the base model's hidden states.
    pub hidden: usize,
    /// False when it stays as seeded.
    pub trained: bool,
}
