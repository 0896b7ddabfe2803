//! Why client.toml was refused, with the place of what is to be fixed.

use std::path::PathBuf;

/// Why client.toml was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Not TOML, a key missing, or a value of the wrong kind.
    #[error("{}: {problem}", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// What the parser says, with line and column.
        problem: String,
    },
    /// A key nobody knows.
    #[error(
        "{}: unknown key `{key}` in {table}{}", .file.display(),
        .nearest.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default()
    )]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The table, as TOML writes it.
        table: String,
        /// The key.
        key: String,
        /// The known key most like it.
        nearest: Option<&'static str>,
    },
    /// A value outside what makes sense.
    #[error("{}: `{key}` {problem}", .file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// Dotted path of the key.
        key: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
}
