//! What tensors a file holds: names, shapes and dtypes, read from a safetensors header alone.

use serde::{Deserialize, Serialize};

use crate::run_file::Dtype;

/// Name, shape and number format of one tensor on the wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Full name, for example `encoder.layer.0.attention.self.query.lora_B` or `head.weight`.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// "F32", "BF16", ... as safetensors spells it.
    pub dtype: String,
}

/// Width and spelling of a wire dtype in a safetensors header.
pub fn safetensors_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "F32",
        Dtype::Bf16 => "BF16",
    }
}
