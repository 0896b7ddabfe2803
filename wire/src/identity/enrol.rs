//! Enrolment: a one-time token and a certificate request become an identity. The private key never
//! leaves its folder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair};
use rondo_proto::v1::{EnrolReply, EnrolRequest, RenewRequest};
use tonic::transport::ClientTlsConfig;

use super::pinned::{Fingerprint, PinnedCa};
use super::{CA, CERTIFICATE, Identity, IdentityError, KEY, NEW_KEY, channel, endpoint, files, host};
use crate::stubs::enrolment_client::EnrolmentClient;

/// How long the coordinator may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What came of an enrolment or a renewal.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// The identity, already saved.
    pub identity: Identity,
    /// False while an operator must still approve the client.
    pub approved: bool,
    /// When the certificate ends, in Unix milliseconds.
    pub expires_at_ms: i64,
}

/// A new private key (PKCS#8 PEM) and a certificate request (PKCS#10 PEM) for a name.
///
/// # Errors
/// The key or the request cannot be made.
pub fn key_and_request(name: &str) -> Result<(String, String), IdentityError> {
    let key = KeyPair::generate().map_err(certificate)?;
    let request = request(&key, name)?;
    Ok((key.serialize_pem(), request))
}

/// Enrols at a coordinator that is trusted only if it shows the CA certificate with the given
/// SHA-256, and saves the identity to `dir`. An empty `name` leaves the choice to the token.
///
/// # Errors
/// The folder already holds an identity; the server does not show that CA; the coordinator refuses.
pub async fn enrol(
    url: &str,
    token: &str,
    ca_fingerprint: &str,
    name: &str,
    dir: &Path,
) -> Result<Enrolled, IdentityError> {
    if files::exists(dir) {
        return Err(IdentityError::Exists { dir: dir.to_owned() });
    }
    let enrolled = redeem(url, token, ca_fingerprint, name, dir, KEY).await?;
    enrolled.identity.save(dir)?;
    Ok(enrolled)
}

/// Puts a new certificate with a new key in the place of an identity that has expired or was
/// revoked, by a token that an operator made for its name. Nothing else in the folder changes. It
/// may be called again with the same token when the answer was lost, or after a crash.
///
/// # Errors
/// The folder holds no identity, or that of another name; the server does not show that CA; the
/// coordinator refuses.
pub async fn renew_by_token(
    url: &str,
    token: &str,
    ca_fingerprint: &str,
    dir: &Path,
) -> Result<Enrolled, IdentityError> {
    let about = files::about(dir)?;
    let enrolled = redeem(url, token, ca_fingerprint, &about.name, dir, NEW_KEY).await?;
    let Identity { name, role, .. } = &enrolled.identity;
    if (&about.name, &about.role) != (name, role) {
        return Err(IdentityError::OtherHolder {
            dir: dir.to_owned(),
            holder: format!("{} `{}`", about.role, about.name),
            other: format!("{role} `{name}`"),
        });
    }
    // A crash in between leaves a key and a certificate that do not fit, and the new key: the same
    // call fixes it.
    enrolled.identity.save(dir)?;
    files::remove(dir, NEW_KEY)?;
    Ok(enrolled)
}

/// Exchanges a token for a certificate of the key in `key_file`, which is made where it is missing.
async fn redeem(
    url: &str,
    token: &str,
    ca_fingerprint: &str,
    name: &str,
    dir: &Path,
    key_file: &str,
) -> Result<Enrolled, IdentityError> {
    let fingerprint: Fingerprint = ca_fingerprint.parse()?;
    let server_name = host(url)?;
    // The key is on disk before the token is spent: a full disk must not cost the token, and who
    // asks again with the same key is answered again.
    files::create_dir(dir)?;
    let key = match files::key(dir, key_file) {
        Some(key) => key,
        None => {
            let key = KeyPair::generate().map_err(certificate)?;
            files::write(dir, key_file, &key.serialize_pem())?;
            key
        }
    };
    let csr_pem = request(&key, name)?;

    let verifier = Arc::new(PinnedCa::new(fingerprint));
    let pin_error = |shown: String| IdentityError::Pin { url: url.to_owned(), expected: fingerprint, shown };
    let channel = endpoint(url)?
        .timeout(TIMEOUT)
        .tls_config_with_verifier(ClientTlsConfig::new().domain_name(server_name), verifier.clone())
        .map_err(|error| super::certificate_error(&error))?
        .connect_lazy();
    let request = EnrolRequest { token: token.to_owned(), csr_pem, name: name.to_owned() };
    let reply = EnrolmentClient::new(channel).enrol(request).await.map_err(|status| match verifier.mismatch() {
        Some(shown) => pin_error(shown),
        None => status.into(),
    })?;
    let reply = reply.into_inner();
    // The reply names the CA to trust from now on; it must be the one that was pinned.
    match Fingerprint::of_pem(&reply.ca_pem) {
        Some(shown) if shown == fingerprint => {}
        Some(shown) => return Err(pin_error(shown.to_string())),
        None => return Err(pin_error("something that is no certificate".to_owned())),
    }
    Ok(enrolled(reply, url.trim_end_matches('/'), key.serialize_pem()))
}

/// Renews a certificate before it ends, with the same key, over the identity's own channel, and
/// saves it to `dir`.
///
/// # Errors
/// The coordinator cannot be reached or refuses; a file cannot be written.
pub async fn renew(identity: &Identity, dir: &Path) -> Result<Enrolled, IdentityError> {
    let key = KeyPair::from_pem(&identity.key_pem).map_err(certificate)?;
    let csr_pem = request(&key, &identity.name)?;
    let reply = EnrolmentClient::new(channel(identity)?).renew(RenewRequest { csr_pem }).await?;
    let enrolled = enrolled(reply.into_inner(), &identity.url, identity.key_pem.clone());
    // Key and name stay, so these two files are all that changes, and either order leaves a working
    // folder.
    files::write(dir, CERTIFICATE, &enrolled.identity.cert_pem)?;
    files::write(dir, CA, &enrolled.identity.ca_pem)?;
    Ok(enrolled)
}

/// Renews a certificate that is in the last third of its life at `now_s` (seconds since 1970);
/// before that there is nothing to do. A certificate that cannot be read is left alone too: the
/// coordinator says what is wrong with it.
///
/// # Errors
/// As of [`renew`].
pub async fn renew_if_due(identity: &Identity, dir: &Path, now_s: i64) -> Result<Option<Enrolled>, IdentityError> {
    if !renewal_due(&identity.cert_pem, now_s) {
        return Ok(None);
    }
    // The coordinator counts the latest certificates only, so one that cannot be saved is lost.
    files::check_writable(dir)?;
    renew(identity, dir).await.map(Some)
}

/// Whether less than a third of a certificate's life is left at `now_s` (seconds since 1970).
pub fn renewal_due(cert_pem: &str, now_s: i64) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes()) else { return false };
    let Ok(certificate) = pem.parse_x509() else { return false };
    let validity = certificate.validity();
    let begin = validity.not_before.timestamp();
    let end = validity.not_after.timestamp();
    now_s >= end - (end - begin) / 3
}

fn enrolled(reply: EnrolReply, url: &str, key_pem: String) -> Enrolled {
    let EnrolReply { certificate_pem: cert_pem, ca_pem, name, role, expires_at_ms, approved } = reply;
    let identity = Identity { url: url.to_owned(), name, role, ca_pem, cert_pem, key_pem };
    Enrolled { identity, approved, expires_at_ms }
}

fn request(key: &KeyPair, name: &str) -> Result<String, IdentityError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(certificate)?;
    params.distinguished_name.remove(DnType::CommonName);
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.serialize_request(key).and_then(|request| request.pem()).map_err(certificate)
}

fn certificate(error: rcgen::Error) -> IdentityError {
    IdentityError::Certificate(error.to_string())
}
