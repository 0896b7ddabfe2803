//! The tensors that are there against those that config.json asks for.

use std::collections::BTreeMap;
use std::path::Path;

use super::StoredTensor;
use crate::config::ModelConfig;
use crate::error::BaseError;
use crate::tensors;

/// The tensors that the model computes with, sorted by name, and what is to be said about the rest.
pub(super) fn check(
    path: &Path,
    config: &ModelConfig,
    mut there: BTreeMap<String, StoredTensor>,
) -> Result<(Vec<StoredTensor>, Vec<String>), BaseError> {
    let dir = || path.to_owned();
    let architecture = config.architecture();
    let mut taken = Vec::new();
    tensors::visit(config, &mut |name, expected| {
        let Some(tensor) = there.remove(name) else {
            return Err(BaseError::Missing { dir: dir(), name: name.to_owned() });
        };
        if tensor.shape != expected {
            let expected = expected.to_vec();
            return Err(BaseError::Shape { dir: dir(), name: name.to_owned(), expected, found: tensor.shape });
        }
        taken.push(tensor);
        Ok(())
    })?;
    there.retain(|name, _| !architecture.is_buffer(name));
    let (heads, unknown): (Vec<String>, Vec<String>) = there.into_keys().partition(|name| architecture.is_head(name));
    if !unknown.is_empty() {
        let architecture = architecture.model_type;
        return Err(BaseError::Unknown { dir: dir(), architecture, names: list(&unknown) });
    }
    taken.sort_by(|left, right| left.name.cmp(&right.name));
    let remark = (!heads.is_empty()).then(|| format!("passes over a head that is not used: {}", list(&heads)));
    Ok((taken, remark.into_iter().collect()))
}

/// How many names a line spells out.
const SHOWN: usize = 8;

/// Names in a line, the first of them if they are many.
pub(super) fn list(names: &[String]) -> String {
    match names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => format!("{}, and {more} more", names[..SHOWN].join(", ")),
        None => names.join(", "),
    }
}
