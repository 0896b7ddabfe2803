//! The line that says what was passed over.

use std::path::Path;

/// How many names are spelled out.
const SHOWN: usize = 8;

/// Names in a line, the first of them if they are many.
pub(super) fn list(names: &[String]) -> String {
    match names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => format!("{}, and {more} more", names[..SHOWN].join(", ")),
        None => names.join(", "),
    }
}

/// One line of several remarks.
pub(super) fn line(path: &Path, remarks: &[String]) -> Option<String> {
    (!remarks.is_empty()).then(|| format!("{}: {}", path.display(), remarks.join("; ")))
}
