//! The folders and files that a command makes.

use std::io::ErrorKind;
use std::path::Path;

use super::error::OfflineError;

/// Refuses a file to be written that is one of those that are read, or no plain file.
pub(super) fn check_file(option: &'static str, out: &Path, inputs: &[&Path]) -> Result<(), OfflineError> {
    let Ok(about) = std::fs::symlink_metadata(out) else { return Ok(()) };
    let refuse = |problem: String| Err(OfflineError::Value { option, problem });
    if !about.is_file() {
        return refuse(format!("{} is no plain file; name one that is not there yet", out.display()));
    }
    let place = std::fs::canonicalize(out).ok();
    let is_same = |input: &&&Path| place.is_some() && std::fs::canonicalize(input).ok() == place;
    match inputs.iter().find(is_same) {
        Some(input) => refuse(format!("{} is read; it would be overwritten", input.display())),
        None => Ok(()),
    }
}

/// Refuses a folder that holds something, so that no file of another adapter or model stays in it;
/// asked before any work is done, which a refusal would throw away.
pub(super) fn check_empty(out: &Path) -> Result<(), OfflineError> {
    let problem = match std::fs::read_dir(out).map(|mut entries| entries.next().is_none()) {
        Ok(true) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            format!("{} is a file; name a folder that is not there yet", out.display())
        }
        Err(error) => format!("{}: {error}", out.display()),
        Ok(false) => format!("{} is not empty; name a folder that is not there yet, or empty this one", out.display()),
    };
    Err(OfflineError::Value { option: "--out", problem })
}
