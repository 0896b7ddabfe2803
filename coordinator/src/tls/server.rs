//! The server's side of TLS: its certificate, renewed from the CA while it serves, and the settings
//! under which callers may, but need not, show a certificate.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::TlsError;
use super::ca::{Authority, CertificateAndKey};
use crate::clock::Millis;
use crate::data_dir::{DataDirError, make_private_dir, write_private};

const RENEW_BEFORE_MS: Millis = 30 * 86_400_000;
/// gRPC speaks HTTP/2 and nothing else.
const ALPN: &[u8] = b"h2";

/// A server certificate on disk.
pub struct ServerCertificate {
    keyed: CertificateAndKey,
    /// End of its validity.
    pub expires_ms: Millis,
}

impl ServerCertificate {
    /// Signs a certificate and writes it to a folder.
    ///
    /// # Errors
    /// The certificate cannot be signed, or the file cannot be written.
    pub fn create(directory: &Path, authority: &Authority, hosts: &[String], now: Millis) -> Result<Self, TlsError> {
        let keyed = authority.issue_server(hosts, now)?;
        make_private_dir(directory)?;
        // Key and certificate are in one file, so that no crash leaves one without the other.
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
        let keyed = CertificateAndKey { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned() };
        Ok(Self { keyed, expires_ms })
    }

    /// Reads the certificate; signs a new one when it ends within 30 days.
    ///
    /// # Errors
    /// The file cannot be read, it holds no certificate, or a new certificate cannot be made.
    pub fn load(directory: &Path, authority: &Authority, hosts: &[String], now: Millis) -> Result<Self, TlsError> {
        let present = Self::read(directory)?;
        if present.expires_ms - now > RENEW_BEFORE_MS {
            return Ok(present);
        }
        tracing::info!(expires_ms = present.expires_ms, "server certificate nears its end, signing a new one");
        Self::create(directory, authority, hosts, now)
    }

    fn certified(&self) -> Result<CertifiedKey, TlsError> {
        let wrong = |e: &dyn fmt::Display| TlsError::Certificate(format!("the server's: {e}"));
        let chain =
            CertificateDer::pem_slice_iter(self.keyed.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_slice(self.keyed.key_pem.as_bytes()).map_err(|e| wrong(&e))?;
        CertifiedKey::from_der(chain.map_err(|e| wrong(&e))?, key, &ring::default_provider()).map_err(|e| wrong(&e))
    }
}

/// The certificate that is shown now. It can be exchanged while connections come in: each handshake
/// takes the present one, and connections that stand are not touched.
pub struct ServerCertResolver {
    now: RwLock<(Arc<CertifiedKey>, Millis)>,
}

impl fmt::Debug for ServerCertResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertResolver").field("expires_ms", &self.expires_ms()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ServerCertResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).0))
    }
}

impl ServerCertResolver {
    /// Shows a certificate.
    ///
    /// # Errors
    /// The certificate or its key cannot be read, or they do not belong together.
    pub fn new(certificate: &ServerCertificate) -> Result<Self, TlsError> {
        Ok(Self { now: RwLock::new((Arc::new(certificate.certified()?), certificate.expires_ms)) })
    }

    /// End of the shown certificate's validity.
    pub fn expires_ms(&self) -> Millis {
        self.now.read().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Shows a new certificate when the present one ends within 30 days; true when it did.
    ///
    /// # Errors
    /// The file cannot be read, or a new certificate cannot be made. The present one stays then.
    pub fn renew(
        &self,
        directory: &Path,
        authority: &Authority,
        hosts: &[String],
        now: Millis,
    ) -> Result<bool, TlsError> {
        if self.expires_ms() - now > RENEW_BEFORE_MS {
            return Ok(false);
        }
        let renewed = ServerCertificate::load(directory, authority, hosts, now)?;
        let shown = (Arc::new(renewed.certified()?), renewed.expires_ms);
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(true)
    }
}

/// Settings for the server: callers without a certificate get through the handshake, callers with
/// one of another CA do not.
///
/// # Errors
/// The CA's certificate cannot be used, or the TLS library refuses the settings.
pub fn server_config(shown: Arc<ServerCertResolver>, authority: &Authority) -> Result<ServerConfig, TlsError> {
    let wrong = |e: &dyn fmt::Display| TlsError::Certificate(format!("the CA's: {e}"));
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).map_err(|e| wrong(&e))?)
        .map_err(|e| wrong(&e))?;
    let provider = Arc::new(ring::default_provider());
    let callers = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let callers = callers.allow_unauthenticated().build().map_err(|e| wrong(&e))?;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(|e| wrong(&e))?.with_client_cert_verifier(callers).with_cert_resolver(shown);
    config.alpn_protocols.push(ALPN.to_vec());
    Ok(config)
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

    #[test]
    fn what_is_shown_is_exchanged_while_it_serves() {
        let dir = tempfile::tempdir().unwrap();
        let now = 1_800_000_000_000;
        let authority = Authority::create(&dir.path().join("ca"), now).unwrap();
        let hosts = ["localhost".to_owned()];
        let server = dir.path().join("server");
        let shown =
            ServerCertResolver::new(&ServerCertificate::create(&server, &authority, &hosts, now).unwrap()).unwrap();
        let first = Arc::clone(&shown.now.read().unwrap().0);
        let end = shown.expires_ms();
        assert!(!shown.renew(&server, &authority, &hosts, now + 86_400_000).unwrap());
        assert!(shown.renew(&server, &authority, &hosts, now + 380 * 86_400_000).unwrap());
        assert_ne!(shown.now.read().unwrap().0.cert, first.cert);
        assert!(shown.expires_ms() > end);
    }
}
