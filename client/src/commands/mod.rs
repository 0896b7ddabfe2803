//! One file per command: its arguments, whose doc comments are its help, and what it does.

#[cfg(feature = "hub")]
pub mod fetch;
pub mod join;
pub mod ledger;
#[cfg(feature = "torch")]
pub mod offline;
pub mod run;

/// Restarts the process with the settings that libtorch reads when it is loaded, where the command computes.
#[cfg(feature = "torch")]
pub fn restart_with_libtorch_settings(command: &crate::cli::Command) {
    use rondo_trainer::environment::{Computation, restart_with_settings};

    use crate::cli::Command;

    let computation = match command {
        Command::Run(_) => Computation::Training,
        Command::Offline(command) if command.trains() => Computation::Training,
        Command::Offline(_) => Computation::Inference,
        _ => return,
    };
    restart_with_settings(computation);
}
