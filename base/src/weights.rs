//! Which files of a model folder hold the base's weights. Folders that Rondo writes hold other tensors beside them.

use std::path::Path;

/// A classifier head that Rondo exported, beside an adapter or beside merged weights.
pub const HEAD_FILE: &str = "rondo_head.safetensors";

/// An adapter's tensors, as PEFT names the file.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";

/// Whether a file of this name is one of those that make up a base: it decides the base's digest, what is loaded and what
/// a merge writes anew. Heads and adapters belong to what was trained on a base, never to the base.
pub fn is_weights(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "safetensors")
        && ![HEAD_FILE, ADAPTER_FILE].contains(&name)
}
