//! Runs and rounds as text, shared by the commands that show them once and by the one that watches.

pub(crate) mod round;
pub(crate) mod run;
