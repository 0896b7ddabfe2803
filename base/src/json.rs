//! JSON files of a model's folder.

use std::path::Path;

use rondo_proto::placeholder::Placeholder;
use serde_json::Value as Json;

use crate::error::BaseError;
use crate::files::size_of;

/// Largest config.json or index that is read. Parsed, a file takes at most 80 times its size.
const MAX_BYTES: u64 = 32 << 20;

/// Reads a JSON file of bounded size.
///
/// # Errors
/// The file cannot be read, is too large, empty, a Git LFS pointer or no JSON.
pub fn read_json(path: &Path) -> Result<Json, BaseError> {
    read_json_up_to(path, MAX_BYTES)
}

/// The same with a bound of its own.
pub(crate) fn read_json_up_to(path: &Path, most: u64) -> Result<Json, BaseError> {
    let problem = |problem: String| BaseError::Config { path: path.to_owned(), problem };
    let io = |source| BaseError::Io { path: path.to_owned(), source };
    let bytes = size_of(path)?;
    if bytes > most {
        return Err(problem(format!("has {bytes} bytes, more than {most}")));
    }
    let text = std::fs::read(path).map_err(io)?;
    match Placeholder::of(&text) {
        Some(placeholder) => Err(problem(placeholder.to_string())),
        None => serde_json::from_slice(&text).map_err(|error| problem(format!("is not valid JSON: {error}"))),
    }
}
