//! `cargo xtask audit`: the long checks of privacy: the noise attacked from outside, and a client
//! that is killed two hundred times.

use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo::{self, step};
use crate::paths::Paths;
use crate::process;
use crate::setup::{self, SetupArgs};

/// Noise multipliers that are audited.
const NOISE: [&str; 3] = ["0.5", "1", "2"];
/// How often the client is killed.
const KILLS: &str = "200";
/// The test that kills it, in the client's `federation`.
const KILLED: &str = "privacy::whatever_left_a_client_that_is_killed_again_and_again_is_in_its_ledger";

/// Sets up, builds and audits.
pub(crate) fn run(paths: &Paths) -> Result<()> {
    setup::run(paths, &SetupArgs::default())?;
    let binaries = cargo::binaries(paths)?;
    for noise in NOISE {
        step(&format!("noise multiplier {noise}: claimed and audited epsilon"));
        let mut audit = Command::new(&binaries.rondo);
        process::run(audit.args(["privacy", "audit", "--noise-multiplier", noise]))?;
    }
    step(&format!("a client killed {KILLS} times: what left it is in its ledger"));
    let mut killed = cargo::cargo(paths);
    killed.args(["test", "--workspace", "--locked", "--test", "federation", "--", "--exact", KILLED]);
    let printed = process::output(killed.env("RONDO_KILLS", KILLS))?;
    print!("{printed}");
    if !one_passed(&printed) {
        bail!("`{KILLED}` did not run: was it renamed? xtask/src/audit.rs names it");
    }
    Ok(())
}

/// Whether exactly one test ran and passed: a name that fits
/// none passes too, in the eyes of `cargo test`.
fn one_passed(printed: &str) -> bool {
    let results: Vec<&str> = printed.lines().filter(|line| line.starts_with("test result:")).collect();
    results.len() == 1 && results[0].starts_with("test result: ok. 1 passed; 0 failed;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_did_not_run_has_not_passed() {
        let result =
            |passed: u32| format!("test result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 7 filtered out");
        assert!(one_passed(&format!("\nrunning 1 test\ntest {KILLED} ... ok\n\n{}\n", result(1))));
        assert!(!one_passed(&format!("\nrunning 0 tests\n\n{}\n", result(0))));
        assert!(!one_passed(&result(2)) && !one_passed(&result(10)) && !one_passed(""));
        assert!(!one_passed("test result: FAILED. 0 passed; 1 failed; 0 ignored"));
    }

    #[test]
    fn the_test_that_is_named_is_there() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../client/tests/federation/privacy.rs");
        let name = KILLED.strip_prefix("privacy::").unwrap();
        assert!(std::fs::read_to_string(file).unwrap().contains(&format!("async fn {name}()")));
    }
}
