//! The certificate authority: made by `init`, kept in the data directory, signs the server and
//! every peer.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::{Role, TlsError, fingerprint};
use crate::clock::Millis;
use crate::data_dir::{DataDirError, make_private_dir, write_private};

const CA_DAYS: i64 = 3650;
const SERVER_DAYS: i64 = 397;
/// Certificates hold from a little earlier, for clocks that run behind.
const EARLY: Duration = Duration::minutes(10);

/// The CA with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    fingerprint: String,
}

/// A certificate that was just signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate, PEM.
    pub pem: String,
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// End of its validity.
    pub expires_ms: Millis,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct CertificateAndKey {
    /// The certificate, PEM; for the server with the CA's behind it.
    pub certificate_pem: String,
    /// The key, PKCS#8 PEM.
    pub key_pem: String,
}

impl Authority {
    /// Makes a new authority and writes it to a folder.
    ///
    /// # Errors
    /// The key or the certificate cannot be made, `now` is out of range, or a file cannot be
    /// written.
    pub fn create(directory: &Path, now: Millis) -> Result<Self, TlsError> {
        let failed = |source| TlsError::Make { what: "CA certificate", source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Rondo CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, CA_DAYS)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        make_private_dir(directory)?;
        write_private(&directory.join("key.pem"), key.serialize_pem().as_bytes())?;
        write_private(&directory.join("ca.pem"), certificate.pem().as_bytes())?;
        Self::load(directory)
    }

    /// Reads an authority that [`create`](Self::create) wrote.
    ///
    /// # Errors
    /// A file cannot be read, or it holds no usable certificate or key.
    pub fn load(directory: &Path) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).map_err(|e| TlsError::File(DataDirError::file("read", &path)(e)))
        };
        let failed = |source| TlsError::Make { what: "signer from the CA's files", source };
        let pem = read("ca.pem")?;
        let key = KeyPair::from_pem(&read("key.pem")?).map_err(failed)?;
        let (_, der) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .map_err(|e| TlsError::Certificate(format!("{}: {e}", directory.join("ca.pem").display())))?;
        let fingerprint = fingerprint(&der.contents);
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(failed)?;
        Ok(Self { issuer, pem, fingerprint })
    }

    /// The CA certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the CA certificate, hex: what `--ca-fingerprint` pins.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// A server certificate for these names and addresses, the CA's behind it: who joins checks the
    /// CA by fingerprint before it has the CA's file.
    ///
    /// # Errors
    /// A certificate cannot carry one of the hosts, `now` is out of range, or the key or the
    /// signature cannot be made.
    pub fn issue_server(&self, hosts: &[String], now: Millis) -> Result<CertificateAndKey, TlsError> {
        let failed = |source| TlsError::Make { what: "server certificate", source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(hosts).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, "Rondo coordinator");
        params.distinguished_name.push(DnType::OrganizationalUnitName, "server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = self.sign(params, &key, now, SERVER_DAYS, failed)?;
        Ok(CertificateAndKey {
            certificate_pem: format!("{}{}", certificate.pem(), self.pem),
            key_pem: key.serialize_pem(),
        })
    }

    /// A certificate for a peer. Of the request only the public key is taken, once its signature
    /// shows that the requester holds the private one; name, role, usage and life, in days, are
    /// ours.
    ///
    /// # Errors
    /// The request is not valid or not signed by its own key, `now` is out of range, or the
    /// signature cannot be made.
    pub fn issue_peer(
        &self,
        csr_pem: &str,
        role: Role,
        name: &str,
        now: Millis,
        days: u32,
    ) -> Result<IssuedCertificate, TlsError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(TlsError::Request)?;
        let failed = |source| TlsError::Make { what: "peer certificate", source };
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationalUnitName, role.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = self.sign(params, &request.public_key, now, i64::from(days), failed)?;
        Ok(IssuedCertificate {
            pem: certificate.pem(),
            fingerprint: fingerprint(certificate.der()),
            expires_ms: now.saturating_add(i64::from(days) * 86_400_000),
        })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        now: Millis,
        days: i64,
        failed: impl FnOnce(rcgen::Error) -> TlsError,
    ) -> Result<rcgen::Certificate, TlsError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial()?);
        set_validity(&mut params, now, days)?;
        params.signed_by(key, &self.issuer).map_err(failed)
    }
}

/// The public key of a certificate request.
///
/// # Errors
/// The request is no PKCS#10.
pub fn public_key(csr_pem: &str) -> Result<Vec<u8>, TlsError> {
    let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(TlsError::Request)?;
    Ok(request.public_key.der_bytes().to_vec())
}

fn set_validity(params: &mut CertificateParams, now: Millis, days: i64) -> Result<(), TlsError> {
    let now = OffsetDateTime::from_unix_timestamp(now / 1000)
        .map_err(|e| TlsError::Certificate(format!("the clock is out of range: {e}")))?;
    params.not_before = now - EARLY;
    params.not_after = now + Duration::days(days);
    Ok(())
}

fn random_serial() -> Result<SerialNumber, TlsError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(TlsError::Random)?;
    // Positive and not zero, as X.509 asks.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use rondo_wire::identity::key_and_request;

    use super::super::peer::PeerCertificate;
    use super::*;

    const NOW: Millis = 1_800_000_000_000;

    fn authority() -> (tempfile::TempDir, Authority) {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path(), NOW).unwrap();
        (dir, authority)
    }

    fn der(pem: &str) -> Vec<u8> {
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
    }

    #[test]
    fn a_peer_certificate_says_who_and_how_long() {
        let (dir, authority) = authority();
        let (_, csr) = key_and_request("").unwrap();
        let issued = authority.issue_peer(&csr, Role::Client, "movies", NOW, 90).unwrap();
        let peer = PeerCertificate::parse(&der(&issued.pem)).unwrap();
        assert_eq!((peer.name.as_str(), peer.role), ("movies", Role::Client));
        assert_eq!(peer.fingerprint, issued.fingerprint);
        assert_eq!(peer.not_after_ms, issued.expires_ms);
        assert_eq!(issued.expires_ms - NOW, 90 * 86_400_000);
        assert!(peer.not_before_ms < NOW);
        let again = Authority::load(dir.path()).unwrap();
        assert_eq!(again.fingerprint(), authority.fingerprint());
        assert_eq!(again.fingerprint(), fingerprint(&der(again.pem())));
    }

    #[test]
    fn nothing_but_the_key_is_taken_from_a_request() {
        let (_dir, authority) = authority();
        let key = KeyPair::generate().unwrap();
        let mut greedy = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        greedy.distinguished_name.push(DnType::CommonName, "someone-else");
        greedy.distinguished_name.push(DnType::OrganizationalUnitName, "operator");
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let csr = greedy.serialize_request(&key).unwrap().pem().unwrap();
        let issued = authority.issue_peer(&csr, Role::Client, "movies", NOW, 90).unwrap();
        let bytes = der(&issued.pem);
        let peer = PeerCertificate::parse(&bytes).unwrap();
        assert_eq!((peer.name.as_str(), peer.role), ("movies", Role::Client));
        let (_, certificate) = x509_parser::parse_x509_certificate(&bytes).unwrap();
        assert!(!certificate.is_ca());
        assert!(certificate.subject_alternative_name().unwrap().is_none());
        assert!(!certificate.key_usage().unwrap().unwrap().value.key_cert_sign());
        assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.der_bytes());
    }

    #[test]
    fn a_request_that_is_none_or_was_changed_is_refused() {
        let (_dir, authority) = authority();
        let error = authority.issue_peer("not pem", Role::Client, "movies", NOW, 90).unwrap_err();
        assert!(matches!(error, TlsError::Request(_)), "{error}");
        let (_, csr) = key_and_request("").unwrap();
        let mut bytes = der(&csr);
        *bytes.last_mut().unwrap() ^= 1;
        let changed = x509_parser::pem::Pem { label: "CERTIFICATE REQUEST".to_owned(), contents: bytes };
        let text = pem_text(&changed);
        assert!(matches!(authority.issue_peer(&text, Role::Client, "movies", NOW, 90), Err(TlsError::Request(_))));
    }

    fn pem_text(pem: &x509_parser::pem::Pem) -> String {
        const SET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in pem.contents.chunks(3) {
            let mut word = [0u8; 3];
            word[..chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes([0, word[0], word[1], word[2]]);
            for k in 0..4 {
                let symbol = SET[(bits >> (18 - 6 * k)) as usize & 63];
                text.push(if k <= chunk.len() { symbol as char } else { '=' });
            }
        }
        format!("-----BEGIN {0}-----\n{text}\n-----END {0}-----\n", pem.label)
    }
}
