//! Settings of the libraries under libtorch, which read them once, when the program is loaded: the
//! program has to be started with them.
//!
//! - By default OpenMP threads spin between two operations. On cores that other processes want too,
//!   every spin is time in which the thread that is waited for does not run: with two busy
//!   neighbours on two cores a training step takes six times as long. Asleep instead
//!   (`OMP_WAIT_POLICY=passive`) they cost next to nothing, alone or in company.
//! - glibc hands out large blocks as pages of their own, but from its heap once a block as large
//!   was freed, up to 32 MB. Tensors of one to a few megabytes that come and go among tensors that
//!   stay then leave holes, and what a step takes cannot be predicted: SmolLM2-135M on one tape
//!   took 1540 MB in place of 1270, with a base packed to NF4 720 in place of 450. With a fixed
//!   bound of 1 MB (`MALLOC_MMAP_THRESHOLD_`) large blocks go back to the system when they are
//!   freed. That costs the system some work, about a tenth of such a step; a bound of 4 MB costs
//!   nothing and fixes only some cases (1265 to 1545 MB).
//! - MKL chooses how a matrix product adds by the number of its rows, on some processors also where
//!   the products are equal in all else. Then a row has other bits in a batch than alone. Its
//!   strict mode (`MKL_CBWR=AUTO,STRICT`) gives a row the same bits in any company. Privacy per
//!   example needs that: see the module `neighbours`.

use std::ffi::OsString;
use std::fs;

/// The variable of MKL's reproducibility.
const MKL_CBWR: &str = "MKL_CBWR";

/// What it is set to where the environment does not set it.
const STRICT: &str = "AUTO,STRICT";

/// The branches of MKL that have a strict mode.
const STRICT_BRANCHES: [&str; 5] = ["AUTO", "AVX2", "AVX512", "AVX512_E1", "AVX512_MIC"];

/// Variables that stay as they are when the environment has one of the names already. The second is
/// only for training steps: generating unpacks quantised matrices for every token and would pay
/// most.
const SETTINGS: [(&str, &str, &[&str]); 2] = [
    ("OMP_WAIT_POLICY", "passive", &["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]),
    ("MALLOC_MMAP_THRESHOLD_", "1048576", &["MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"]),
];

/// What a program computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Computation {
    /// Training steps, and all else.
    Training,
    /// Evaluation and generation alone.
    Inference,
}

/// What an environment lacks for a program that computes: names and values.
fn absent(computation: Computation, environment: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, String)> {
    let wanted = &SETTINGS[..if computation == Computation::Training { 2 } else { 1 }];
    let lacking = wanted.iter().filter(|(_, _, names)| names.iter().all(|name| environment(name).is_none()));
    let mut settings: Vec<_> = lacking.map(|(name, value, _)| (*name, (*value).to_owned())).collect();
    if computation == Computation::Training {
        let current = environment(MKL_CBWR).map(|value| value.to_string_lossy().into_owned());
        settings.extend(strict(current.as_deref()).map(|value| (MKL_CBWR, value)));
    }
    settings
}

/// What `MKL_CBWR` has to become, given what it is; `None` where it is strict already. A value that
/// names a branch of MKL keeps it.
fn strict(current: Option<&str>) -> Option<String> {
    let Some(current) = current.map(str::trim) else { return Some(STRICT.to_owned()) };
    let (branch, is_strict) = match current.strip_suffix(",STRICT") {
        Some(branch) => (branch, true),
        None => (current, false),
    };
    match STRICT_BRANCHES.contains(&branch) {
        true if is_strict => None,
        true => Some(format!("{branch},STRICT")),
        // The slowest branch is the same for all numbers of rows.
        false if current == "COMPATIBLE" => None,
        false => Some(STRICT.to_owned()),
    }
}

/// Starts this program once more, same arguments and same process id, with the settings that the
/// environment does not have. Does nothing when it has them all, and returns when the program
/// cannot be started again. Call it first thing. A value of `MKL_CBWR` that is not strict is
/// replaced, with a line on standard error.
#[cfg(unix)]
pub fn restart_with_settings(computation: Computation) {
    use std::io::{self, Write};
    use std::os::unix::process::CommandExt;

    let settings = absent(computation, |name| std::env::var_os(name));
    if settings.is_empty() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let replaced = std::env::var_os(MKL_CBWR);
    if let (Some(old), Some((name, new))) = (replaced, settings.iter().find(|(name, _)| *name == MKL_CBWR)) {
        // The log is not there yet. Nobody is there to read when standard error is closed.
        let old = old.to_string_lossy();
        let _ = writeln!(io::stderr(), "warning: {name}={old} is not strict; training runs with {name}={new}");
    }
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Only returns on failure. Then everything works as well, only slower on a busy machine and in
    // more memory; private training finds out by trial whether it needs the strict mode.
    let error = command.args(arguments).envs(settings).exec();
    tracing::debug!(%error, "cannot restart with settings for libtorch");
}

/// Elsewhere the program cannot be replaced in place. Set `OMP_WAIT_POLICY=passive` and
/// `MKL_CBWR=AUTO,STRICT` by hand.
#[cfg(not(unix))]
pub fn restart_with_settings(_computation: Computation) {}

/// The processor's name as the system gives it.
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let name = named.map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| format!("a processor of architecture {}", std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(computation: Computation, there: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let find = |name: &str| there.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        absent(computation, find)
    }

    #[test]
    fn what_the_environment_lacks_is_set_once() {
        let names = |computation| lacking(computation, &[]).iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(Computation::Training), ["OMP_WAIT_POLICY", "MALLOC_MMAP_THRESHOLD_", "MKL_CBWR"]);
        assert_eq!(names(Computation::Inference), ["OMP_WAIT_POLICY"]);
        let settings = lacking(Computation::Training, &[]);
        let there: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert!(lacking(Computation::Training, &there).is_empty());
        assert_eq!(
            lacking(Computation::Training, &[("GOMP_SPINCOUNT", "0"), ("GLIBC_TUNABLES", "")]),
            [(MKL_CBWR, STRICT.to_owned())]
        );
    }

    #[test]
    fn a_strict_value_of_the_user_stays_and_a_weaker_one_does_not() {
        for kept in ["AUTO,STRICT", "AVX2,STRICT", "AVX512,STRICT", "COMPATIBLE"] {
            assert_eq!(strict(Some(kept)), None, "{kept}");
        }
        let replaced =
            [("AVX2", "AVX2,STRICT"), ("AVX512", "AVX512,STRICT"), ("AUTO", STRICT), ("OFF", STRICT), ("", STRICT)];
        for (weak, strong) in replaced {
            assert_eq!(strict(Some(weak)).as_deref(), Some(strong), "{weak}");
            assert_eq!(strict(Some(strong)), None, "{strong}");
        }
        // MKL has no strict mode for this one, so the name alone would promise too much.
        assert_eq!(strict(Some("SSE4_2,STRICT")).as_deref(), Some(STRICT));
    }
}
