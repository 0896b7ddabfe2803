//! The configuration file of `rondo-coordinator serve`, TOML. Every key has a default; flags win
//! over the file.
//!
//! ```toml
//! listen = "127.0.0.1:7461"
//! drain_s = 10
//! client_certificate_days = 90
//! token_ttl_s = 86400
//! max_staging_bytes = 21474836480
//! max_connections = 1024
//!
//! [log]
//! format = "text"                 # or "json"
//! filter = "info"                 # as RUST_LOG spells it
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the coordinator listens when nothing else is said.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7461";

/// Settings of a serving coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port; port 0 takes a free one and `DIR/address` says which.
    pub listen: SocketAddr,
    /// Seconds that requests under way get to finish at a shutdown.
    pub drain_s: u64,
    /// Life of the certificates that clients and operators get, in days.
    pub client_certificate_days: u32,
    /// Life of a join token for which none is asked, in seconds.
    pub token_ttl_s: u64,
    /// Most bytes that unfinished uploads may hold in the staging folder together.
    pub max_staging_bytes: u64,
    /// Most connections at a time; at most a quarter of them without a certificate. Further ones
    /// wait.
    pub max_connections: u32,
    /// What is logged and how.
    pub log: LogConfig,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Lines for people or objects for machines.
    pub format: LogFormat,
    /// Which events, as RUST_LOG spells it. The variable RUST_LOG wins.
    pub filter: String,
}

/// Forms of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7461)),
            drain_s: 10,
            client_certificate_days: 90,
            token_ttl_s: 86_400,
            max_staging_bytes: 20 << 30,
            max_connections: 1024,
            log: LogConfig::default(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// Why a configuration file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, has an unknown key or a value of the wrong kind.
    #[error("{path}: {problem}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong.
        problem: String,
    },
    /// A value outside what makes sense.
    #[error("{path}: `{key}` {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What is allowed.
        problem: &'static str,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read or parsed, or a value is out of range.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let path = path.to_owned();
        let config: Self = match toml::from_str(text) {
            Ok(config) => config,
            Err(e) => return Err(ConfigError::Parse { path, problem: e.to_string().trim_end().to_owned() }),
        };
        let outside = |key, problem| Err(ConfigError::Value { path: path.clone(), key, problem });
        if !(1..=3650).contains(&config.client_certificate_days) {
            return outside("client_certificate_days", "must be from 1 to 3650");
        }
        if config.token_ttl_s == 0 {
            return outside("token_ttl_s", "must be at least 1");
        }
        if config.max_staging_bytes < 1 << 20 {
            return outside("max_staging_bytes", "must be at least 1048576 (1 MiB)");
        }
        if !(4..=1 << 20).contains(&config.max_connections) {
            return outside("max_connections", "must be from 4 to 1048576");
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("coordinator.toml"))
    }

    #[test]
    fn an_empty_file_gives_the_defaults_and_they_write_out() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(Config::default().listen.to_string(), DEFAULT_LISTEN);
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(parse(&text).unwrap(), Config::default());
    }

    #[test]
    fn unknown_keys_and_bad_values_name_the_file_and_the_key() {
        let error = parse("drain_seconds = 3").unwrap_err().to_string();
        assert!(error.contains("coordinator.toml") && error.contains("drain_seconds"), "{error}");
        assert!(error.contains("drain_s"), "lists what is known: {error}");
        let error = parse("client_certificate_days = 0").unwrap_err().to_string();
        assert!(error.contains("from 1 to 3650"), "{error}");
        assert!(parse("[log]\nformat = \"xml\"").is_err());
    }
}
