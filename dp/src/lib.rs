//! What a run promises about its clients' data.
//!
//! This version holds the public types alone: a [`Privacy`] is always an explicit value, [`Privacy::None`] too, and
//! every report carries its [`Privacy::statement`]. A guarantee that cannot be kept is refused
//! ([`Privacy::enforceable`]), never weakened in silence.

mod privacy;

pub use privacy::{Privacy, PrivacyError, Unit};
