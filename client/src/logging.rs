//! What the program writes to standard error: log lines, for people
//! or as one JSON object each, and how it failed.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Names what is logged, in the syntax of `RUST_LOG`.
const FILTER: &str = "RONDO_LOG";

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is none.
    #[error("{FILTER}={filter:?} is not valid: {problem}; use for example \"info\" or \"rondo_client=debug,info\"")]
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

/// Starts logging at the level that `RONDO_LOG` names, or at "info".
///
/// # Errors
/// A filter that cannot be parsed, or logging that was started before.
pub fn start(as_json: bool) -> Result<(), LoggingError> {
    let filter = std::env::var(FILTER).unwrap_or_else(|_| "info".to_owned());
    let parsed = EnvFilter::try_new(&filter)
        .map_err(|error| LoggingError::Filter { filter: filter.clone(), problem: error.to_string() })?;
    // Colours are for people at a terminal; in a file or a pipe they are noise.
    let colours = io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(parsed).with_writer(io::stderr).with_ansi(colours).with_target(false);
    let started = if as_json { log.json().try_init() } else { log.try_init() };
    started.map_err(|error| LoggingError::Started(error.to_string()))
}

/// An error's message and those of its causes that it does not contain already.
pub fn with_causes(error: &anyhow::Error) -> String {
    let mut message = error.to_string();
    for cause in error.chain().skip(1) {
        let reason = cause.to_string();
        // "is not there" says what the system would say, and more.
        let absent = cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
        let is_known = message.contains(&reason) || absent && message.contains(" is not there");
        if !is_known {
            message = format!("{message}: {reason}");
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_reported_once() {
        let error = anyhow::anyhow!("no space left").context("update.safetensors: no space left").context("round 1");
        assert_eq!(with_causes(&error), "round 1: update.safetensors: no space left");
        let absent =
            anyhow::Error::from(io::Error::from(io::ErrorKind::NotFound)).context("x.tsv is not there; name another");
        assert_eq!(with_causes(&absent), "x.tsv is not there; name another");
    }
}
