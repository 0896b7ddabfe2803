//! `eos_token_id`: which tokens end a text.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::{SettingsFile, quoted};
use crate::error::BaseError;

const KEY: &str = "eos_token_id";

/// The ids of a file: a number, a list of them, or none.
pub(super) fn of(file: &SettingsFile) -> Result<BTreeSet<u32>, BaseError> {
    let one = |value: &Json| {
        value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            file.refuse(format!("`{KEY}` holds {}; it is the id of a token, or a list of ids", quoted(value)))
        })
    };
    match file.get(KEY) {
        None | Some(Json::Null) => Ok(BTreeSet::new()),
        Some(Json::Array(ids)) => ids.iter().map(one).collect(),
        Some(id) => Ok(BTreeSet::from([one(id)?])),
    }
}
