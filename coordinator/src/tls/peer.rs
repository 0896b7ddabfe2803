//! What a caller's certificate says. Its signature was checked in the TLS handshake; whether it
//! still counts is asked of the store at every call.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Role, TlsError, fingerprint};
use crate::clock::Millis;

/// Subject and validity of a peer's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// CN.
    pub name: String,
    /// OU.
    pub role: Role,
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// Start of its validity.
    pub not_before_ms: Millis,
    /// End of its validity.
    pub not_after_ms: Millis,
}

impl PeerCertificate {
    /// Reads a certificate, DER. Exactly one CN and one OU are expected, as the authority writes
    /// them.
    ///
    /// # Errors
    /// The bytes are no certificate, its subject does not hold exactly one CN and one OU, or the OU
    /// names no role.
    pub fn parse(der: &[u8]) -> Result<Self, TlsError> {
        let wrong = |problem: String| TlsError::Certificate(problem);
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| wrong(e.to_string()))?;
        let only = |mut values: Vec<&str>, what: &str| match (values.pop(), values.is_empty()) {
            (Some(value), true) => Ok(value.to_owned()),
            _ => Err(wrong(format!("expected exactly one {what} in its subject"))),
        };
        let subject = certificate.subject();
        let name = only(subject.iter_common_name().filter_map(|a| a.as_str().ok()).collect(), "CN")?;
        let role = only(subject.iter_organizational_unit().filter_map(|a| a.as_str().ok()).collect(), "OU")?;
        let validity = certificate.validity();
        Ok(Self {
            name,
            role: role.parse().map_err(|e: super::InvalidRole| wrong(e.to_string()))?,
            fingerprint: fingerprint(der),
            not_before_ms: validity.not_before.timestamp().saturating_mul(1000),
            not_after_ms: validity.not_after.timestamp().saturating_mul(1000),
        })
    }
}
