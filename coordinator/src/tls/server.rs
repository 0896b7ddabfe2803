//! The server's side of TLS: its certificate, renewed from the CA at start-up when it nears its end, and the settings
//! under which callers may, but need not, show a certificate.

use std::path::Path;
use std::time::Duration;

use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::TlsError;
use super::ca::{Authority, Keyed};
use crate::clock::Millis;
use crate::data_dir::{DataDirError, make_private_dir, write_private};

const RENEW_BEFORE_MS: Millis = 30 * 86_400_000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A server certificate on disk.
pub struct ServerCertificate {
    keyed: Keyed,
    /// End of its validity.
    pub expires_ms: Millis,
}

impl ServerCertificate {
    /// Signs a certificate and writes it to a folder.
    pub fn create(directory: &Path, authority: &Authority, hosts: &[String], now: Millis) -> Result<Self, TlsError> {
        let keyed = authority.issue_server(hosts, now)?;
        make_private_dir(directory)?;
        // Key and certificate stand in one file, so that no crash leaves one without the other.
        let both = format!("{}{}", keyed.key_pem, keyed.certificate_pem);
        write_private(&directory.join("server.pem"), both.as_bytes())?;
        Self::read(directory)
    }

    fn read(directory: &Path) -> Result<Self, TlsError> {
        let path = directory.join("server.pem");
        let both = std::fs::read_to_string(&path).map_err(|e| TlsError::File(DataDirError::file("read", &path)(e)))?;
        let wrong = |problem: &str| TlsError::Certificate(format!("{}: {problem}", path.display()));
        let start = both.find("-----BEGIN CERTIFICATE-----").ok_or_else(|| wrong("holds no certificate"))?;
        let (key_pem, certificate_pem) = both.split_at(start);
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).map_err(|e| wrong(&e.to_string()))?;
        let certificate = pem.parse_x509().map_err(|e| wrong(&e.to_string()))?;
        let expires_ms = certificate.validity().not_after.timestamp().saturating_mul(1000);
        let keyed = Keyed { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned() };
        Ok(Self { keyed, expires_ms })
    }

    /// Reads the certificate; signs a new one when it ends within 30 days.
    pub fn load(directory: &Path, authority: &Authority, hosts: &[String], now: Millis) -> Result<Self, TlsError> {
        let present = Self::read(directory)?;
        if present.expires_ms - now > RENEW_BEFORE_MS {
            return Ok(present);
        }
        tracing::info!(expires_ms = present.expires_ms, "server certificate nears its end, signing a new one");
        Self::create(directory, authority, hosts, now)
    }

    /// Settings for the server: callers without a certificate get as far as enrolment.
    pub fn config(&self, authority: &Authority) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.keyed.certificate_pem, &self.keyed.key_pem))
            .client_ca_root(Certificate::from_pem(authority.pem()))
            .client_auth_optional(true)
            .timeout(HANDSHAKE_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_near_its_end_is_renewed_and_a_fresh_one_kept() {
        let dir = tempfile::tempdir().unwrap();
        let now = 1_800_000_000_000;
        let authority = Authority::create(&dir.path().join("ca"), now).unwrap();
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = dir.path().join("server");
        let first = ServerCertificate::create(&server, &authority, &hosts, now).unwrap();
        let kept = ServerCertificate::load(&server, &authority, &hosts, now + 86_400_000).unwrap();
        assert_eq!(kept.keyed.certificate_pem, first.keyed.certificate_pem);
        let renewed = ServerCertificate::load(&server, &authority, &hosts, now + 380 * 86_400_000).unwrap();
        assert_ne!(renewed.keyed.certificate_pem, first.keyed.certificate_pem);
        assert!(renewed.expires_ms > first.expires_ms);
        assert_eq!(renewed.keyed.certificate_pem.matches("BEGIN CERTIFICATE").count(), 2);
    }
}
