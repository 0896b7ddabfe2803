//! Certificates: who signs them, what the server shows, and what a caller's says.

pub mod ca;
pub mod peer;
pub mod server;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a certificate allows its holder to call; its OU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The Federation service.
    Client,
    /// The Administration service.
    Operator,
}

impl Role {
    /// As certificates, tokens and records spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("role {0:?} is not known; use \"client\" or \"operator\"")]
pub struct InvalidRole(pub String);

impl FromStr for Role {
    type Err = InvalidRole;
    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        match text {
            "client" => Ok(Self::Client),
            "operator" => Ok(Self::Operator),
            _ => Err(InvalidRole(text.to_owned())),
        }
    }
}

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the data directory.
    #[error(transparent)]
    File(#[from] crate::data_dir::DataDirError),
    /// Signing or key generation failed.
    #[error("cannot make the {what}: {source}")]
    Make {
        /// Which certificate.
        what: &'static str,
        /// What rcgen says.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate request that cannot be signed.
    #[error("the certificate request is not valid: {0}; send a PKCS#10 request in PEM, signed by its own key")]
    Request(#[source] rcgen::Error),
    /// A certificate that cannot be read.
    #[error("the certificate is not valid: {0}")]
    Certificate(String),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

/// SHA-256 in lower-case hex: how certificates are identified.
pub fn fingerprint(der: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(der))
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
