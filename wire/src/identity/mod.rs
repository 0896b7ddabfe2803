//! Who a program is: a folder with a private key, a certificate and the coordinator it belongs to.
//!
//! The folder holds `identity.toml` (url, name, role), `ca.pem`, `cert.pem` and `key.pem` (readable
//! by its owner only).

mod enrol;
mod files;
mod pinned;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};

pub use enrol::{Enrolled, enrol, key_and_request, renew, renew_by_token, renew_if_due, renewal_due};
pub use pinned::{Fingerprint, InvalidFingerprint};

use crate::status::explain;

const ABOUT: &str = "identity.toml";
const CA: &str = "ca.pem";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// The key of a renewal that is under way.
const NEW_KEY: &str = "key.new.pem";

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A ping is sent after so long without traffic, so that a dead connection is noticed while waiting
/// for a stream.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A program's identity, as read from its folder.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Where the coordinator is, "https://host:port".
    pub url: String,
    /// The name the certificate carries.
    pub name: String,
    /// "client" or "operator".
    pub role: String,
    /// The coordinator's CA certificate, PEM.
    pub ca_pem: String,
    /// This program's certificate, PEM.
    pub cert_pem: String,
    /// This program's private key, PEM (PKCS#8).
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, name, role, .. } = self;
        write!(f, "Identity {{ url: {url:?}, name: {name:?}, role: {role:?}, key: (hidden) }}")
    }
}

#[derive(Serialize, Deserialize)]
struct About {
    url: String,
    name: String,
    role: String,
}

/// What can go wrong with an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The folder holds no identity.
    #[error("{dir} holds no identity: {file} is missing", dir = .dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
        /// The file that is missing.
        file: &'static str,
    },
    /// The folder already holds one; it is never overwritten.
    #[error("{dir} already holds an identity", dir = .dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// The coordinator gave a certificate of another name or role than the folder's.
    #[error("{dir} is the identity of {holder}, and the token is for {other}", dir = .dir.display())]
    OtherHolder {
        /// The folder.
        dir: PathBuf,
        /// The folder's role and name.
        holder: String,
        /// Those in the new certificate.
        other: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// identity.toml is damaged.
    #[error("{path} is damaged: {problem}", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The address is no https URL with a host.
    #[error("{url:?} is not an address of a coordinator: expected https://host:port")]
    Url {
        /// The address.
        url: String,
    },
    /// The fingerprint is no SHA-256.
    #[error(transparent)]
    Fingerprint(#[from] InvalidFingerprint),
    /// Who answers is not who was meant.
    #[error("the server at {url} does not show the CA certificate with fingerprint {expected}, but {shown}")]
    Pin {
        /// The address.
        url: String,
        /// The pinned fingerprint.
        expected: Fingerprint,
        /// What it shows instead.
        shown: String,
    },
    /// The key, certificate or request cannot be made or used.
    #[error("certificate: {0}")]
    Certificate(String),
    /// The coordinator cannot be reached or refuses.
    #[error("{}", explain(.status).0)]
    Refused {
        /// The coordinator's answer, or the transport's.
        status: Box<Status>,
    },
}

impl IdentityError {
    /// How to fix it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Pin { .. } => {
                "compare the fingerprint with what `rondo-coordinator init` printed; if it is right, someone else \
                 answers at this address: do not go on"
            }
            Self::Refused { status } if status.code() == Code::Unauthenticated => {
                return explain(status).1.or_else(|| {
                    Some("a join token serves once and expires: ask the operator for a new one".to_owned())
                });
            }
            Self::Refused { status } => return explain(status).1,
            Self::Exists { .. } => {
                "did it expire, or was it revoked? an operator makes a token with `rondo token create --renew NAME`, and `join \
                 --renew` takes it and keeps everything else in the folder; for another client, choose another folder"
            }
            Self::OtherHolder { .. } => "ask the operator for a token of the folder's own name",
            Self::Url { .. } => "use the address that `rondo-coordinator init` printed",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<Status> for IdentityError {
    fn from(status: Status) -> Self {
        Self::Refused { status: Box::new(status) }
    }
}

/// Reads an identity folder.
///
/// # Errors
/// The folder holds no identity, or a file of it cannot be read.
pub fn load(dir: &Path) -> Result<Identity, IdentityError> {
    files::load(dir)
}

impl Identity {
    /// Writes the folder; the key is readable by its owner only, and every file is written whole or
    /// not at all.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        files::save(self, dir)
    }
}

/// A channel to the identity's coordinator over mutual TLS. Connects when first used, and again
/// after a break. Must be called within a tokio runtime.
///
/// # Errors
/// The URL is not an https address, or the certificates cannot be used.
pub fn channel(identity: &Identity) -> Result<Channel, IdentityError> {
    let tls = ClientTlsConfig::new()
        .domain_name(host(&identity.url)?)
        .ca_certificate(Certificate::from_pem(&identity.ca_pem))
        .identity(tonic::transport::Identity::from_pem(&identity.cert_pem, &identity.key_pem));
    let endpoint = endpoint(&identity.url)?.tls_config(tls).map_err(|error| certificate_error(&error))?;
    Ok(endpoint.connect_lazy())
}

/// An address without a slash at its end, checked.
fn endpoint(url: &str) -> Result<Endpoint, IdentityError> {
    host(url)?;
    let endpoint = Endpoint::from_shared(url.trim_end_matches('/').to_owned())
        .map_err(|_| IdentityError::Url { url: url.to_owned() })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

/// The host of an https address, which is also the name that the server's certificate must carry.
fn host(url: &str) -> Result<String, IdentityError> {
    let invalid = || IdentityError::Url { url: url.to_owned() };
    let uri: tonic::codegen::http::Uri = url.parse().map_err(|_| invalid())?;
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host().filter(|host| secure && !host.is_empty()).ok_or_else(invalid)?;
    Ok(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

/// An error with all its causes, since tonic's own text names none.
fn certificate_error(error: &dyn std::error::Error) -> IdentityError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    IdentityError::Certificate(text)
}
