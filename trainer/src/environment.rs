//! Settings of the libraries under libtorch, which read them once, when the program is loaded: the program has to be
//! started with them.
//!
//! - By default OpenMP threads spin between two operations. On cores that other processes want too, every spin is time in
//!   which the thread that is waited for does not run: with two busy neighbours on two cores a training step takes six
//!   times as long. Asleep instead (`OMP_WAIT_POLICY=passive`) they cost next to nothing, alone or in company.
//! - glibc hands out large blocks as pages of their own, but from its heap once a block as large was freed, up to 32 MB.
//!   Tensors of one to a few megabytes that come and go among tensors that stay then leave holes, and what a step takes
//!   cannot be told beforehand: SmolLM2-135M on one tape took 1540 MB in place of 1270, with a base packed to NF4 720 in
//!   place of 450. With a fixed bound of 1 MB (`MALLOC_MMAP_THRESHOLD_`) large blocks go back to the system when they are
//!   freed. That costs the system some work, about a tenth of such a step; a bound of 4 MB costs nothing and mends only
//!   some cases (1265 to 1545 MB).

/// What a program that computes is started with, unless the environment has one of these names already; the second only
/// where it takes training steps, since generating unpacks quantised matrices for every token and would pay most for it.
#[cfg(unix)]
const SETTINGS: [(&str, &str, &[&str]); 2] = [
    ("OMP_WAIT_POLICY", "passive", &["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]),
    ("MALLOC_MMAP_THRESHOLD_", "1048576", &["MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"]),
];

/// Starts this program anew, same arguments and same process id, with the settings that the environment does not have.
/// Does nothing when it has them all, and returns when the program cannot be started again. Call it first thing.
#[cfg(unix)]
pub fn restart_with_settings(steps: bool) {
    use std::os::unix::process::CommandExt;

    let absent = |(_, _, names): &&(_, _, &[&str])| names.iter().all(|name| std::env::var_os(name).is_none());
    let wanted = &SETTINGS[..if steps { 2 } else { 1 }];
    let settings: Vec<(&str, &str)> = wanted.iter().filter(absent).map(|(name, value, _)| (*name, *value)).collect();
    if settings.is_empty() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Only returns on failure; then everything works as well, only slower on a busy machine and in more memory.
    let error = command.args(arguments).envs(settings).exec();
    tracing::debug!(%error, "cannot restart with settings for libtorch");
}

/// Elsewhere the program cannot be replaced in place; set `OMP_WAIT_POLICY=passive` by hand.
#[cfg(not(unix))]
pub fn restart_with_settings(_steps: bool) {}
