//! Log lines to standard error: for people, or one JSON object each.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts logging. RUST_LOG, where it is set, wins over the filter.
///
/// # Errors
/// A filter that cannot be parsed, or logging that was started before.
pub fn start(config: &LogConfig) -> Result<(), LoggingError> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) => filter,
        Err(_) => config.filter.clone(),
    };
    let parsed = EnvFilter::try_new(&filter).map_err(|e| LoggingError::Filter { filter, problem: e.to_string() })?;
    // Colours are for people at a terminal; in a file or a pipe they are noise.
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_ansi(is_terminal).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| LoggingError::Started(e.to_string()))
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is none.
    #[error(
        "log filter {filter:?} is not valid: {problem}; use for example \"info\" or \"rondo_coordinator=debug,info\""
    )]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong.
        problem: String,
    },
    /// It was started before.
    #[error("logging was started already: {0}")]
    Started(String),
}
