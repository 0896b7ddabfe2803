//! Running the real program.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `rondo` with arguments, far from any identity of this machine.
pub(crate) fn rondo(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rondo"));
    command.env("HOME", dir).env_remove("RONDO_IDENTITY").current_dir(dir).args(args).output().unwrap()
}

/// What it printed, with its exit code.
pub(crate) fn output_of(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
