//! What a method says of PEFT's own type for it, beside plain LoRA.

use serde_json::{Map, Value};

/// How a method's tensors become an adapter of a PEFT type.
#[derive(Debug, Clone, PartialEq)]
pub struct Native {
    /// `peft_type` of `adapter_config.json`, for example `MISS`.
    pub peft_type: &'static str,
    /// Further keys of `adapter_config.json`, as that type's own configuration has them.
    pub settings: Map<String, Value>,
    /// Of every target: the key behind the module's name in
    /// the weights file, and the part that it holds.
    pub tensors: Vec<(&'static str, &'static str)>,
    /// Who adds the method's offset when the adapter is loaded.
    pub offset: OffsetBy,
}

/// Who adds a method's offset to the base when an exported adapter is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetBy {
    /// Nobody: the export of a method with an offset is refused.
    Nobody,
    /// The loader of this PEFT type computes it from the base.
    Loader,
}
