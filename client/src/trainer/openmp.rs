//! How libtorch's CPU threads wait for each other.
//!
//! By default OpenMP threads spin between two operations. On cores that other processes want too, every spin is time in
//! which the thread that is waited for does not run: with two busy neighbours on two cores a training step takes six
//! times as long. Asleep instead (`OMP_WAIT_POLICY=passive`) they cost next to nothing, alone or in company. The runtime
//! library reads the setting once, when the program is loaded, so the program has to be started with it.

/// Starts this program anew, same arguments and same process id, with threads that wait asleep. Does nothing when the
/// environment already says how threads wait, and returns when the program cannot be started again. Call it first thing.
#[cfg(unix)]
pub fn restart_with_passive_waiting() {
    use std::os::unix::process::CommandExt;

    if ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Only returns on failure; then everything works as well, only slower on a busy machine.
    let error = command.args(arguments).env("OMP_WAIT_POLICY", "passive").exec();
    tracing::debug!(%error, "cannot restart with OMP_WAIT_POLICY=passive");
}

/// Elsewhere the program cannot be replaced in place; set `OMP_WAIT_POLICY=passive` by hand.
#[cfg(not(unix))]
pub fn restart_with_passive_waiting() {}
