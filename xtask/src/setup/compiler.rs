//! The C++ compiler that the libtorch bindings need.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// Fails with the remedy when there is no C++ compiler.
pub(crate) fn check() -> Result<()> {
    let named = std::env::var("CXX").ok();
    let names = named.iter().map(String::as_str).chain(["c++", "g++", "clang++"]);
    for name in names {
        // CXX may hold flags, or a launcher before the compiler.
        let mut words = name.split_whitespace();
        let Some(program) = words.next() else { continue };
        if process::succeeds(Command::new(program).args(words).arg("--version")) {
            return Ok(());
        }
    }
    bail!(
        "no C++ compiler was found, which builds the bindings to libtorch\n\
         fix: install one (Debian, Ubuntu: `apt-get install g++`; Fedora: `dnf install gcc-c++`), or name it in CXX"
    )
}
