//! The `rondo` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    rondo::main()
}
