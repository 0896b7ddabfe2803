//! Trust at first contact: the server must show a CA certificate whose SHA-256 the operator knows,
//! and its own certificate must be issued by that CA for the host that was dialled.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a certificate's DER encoding; written as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// Why a text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CA fingerprint {0:?} is not valid: expected the 64 hexadecimal digits of a SHA-256")]
pub struct InvalidFingerprint(pub String);

impl Fingerprint {
    /// Fingerprint of a certificate in DER.
    pub fn of_der(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// Fingerprint of the first certificate in a PEM text.
    pub fn of_pem(pem: &str) -> Option<Self> {
        use rustls::pki_types::pem::PemObject;
        CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| Self::of_der(&der))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    /// Takes the digits in either case, with or without colons and a leading "sha256:".
    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let invalid = || InvalidFingerprint(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let digits: Vec<u8> =
            lower.strip_prefix("sha256:").unwrap_or(&lower).bytes().filter(|byte| *byte != b':').collect();
        if digits.len() != 64 {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or_else(invalid);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        Ok(Self(bytes))
    }
}

/// A verifier that trusts the one CA with this fingerprint, and remembers what a server without it
/// showed.
#[derive(Debug)]
pub(super) struct PinnedCa {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
    shown: Mutex<Option<String>>,
}

impl PinnedCa {
    pub(super) fn new(fingerprint: Fingerprint) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self { fingerprint, provider, shown: Mutex::new(None) }
    }

    /// What the server showed in place of the pinned CA, if that is why the connection failed.
    pub(super) fn mismatch(&self) -> Option<String> {
        self.shown.lock().ok().and_then(|shown| shown.clone())
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(ca) = intermediates.iter().find(|der| Fingerprint::of_der(der) == self.fingerprint) else {
            let shown: Vec<String> = intermediates.iter().map(|der| Fingerprint::of_der(der).to_string()).collect();
            let words = if shown.is_empty() { "no CA certificate at all".to_owned() } else { shown.join(", ") };
            if let Ok(mut slot) = self.shown.lock() {
                *slot = Some(words);
            }
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
