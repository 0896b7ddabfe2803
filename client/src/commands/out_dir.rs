//! The folder that a command makes.

use std::io::ErrorKind;
use std::path::Path;

use super::offline::OfflineError;

/// Refuses a folder that holds something, so that no file of another adapter or model stays in it; asked before any work
/// is done, which a refusal would throw away.
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
