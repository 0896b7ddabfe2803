use std::net::SocketAddr;

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response};

use super::*;
use crate::status::status;
use crate::stubs::enrolment_client::EnrolmentClient;
use crate::stubs::enrolment_server::{Enrolment, EnrolmentServer};
use rondo_proto::error::ErrorCode;
use rondo_proto::v1::{EnrolReply, EnrolRequest, RenewRequest};

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test CA");
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { issuer: Issuer::new(params, key), pem }
}

/// An enrolment service as small as can be; it also hands out a wrong CA when told to.
struct Office {
    ca: Ca,
    reply_ca: String,
}

impl Office {
    fn sign(&self, csr: &str, name: &str) -> EnrolReply {
        let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let certificate = request.signed_by(&self.ca.issuer).unwrap();
        EnrolReply {
            certificate_pem: certificate.pem(),
            ca_pem: self.reply_ca.clone(),
            name: name.to_owned(),
            role: "client".to_owned(),
            expires_at_ms: 7,
            approved: true,
        }
    }
}

#[tonic::async_trait]
impl Enrolment for Office {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let request = request.into_inner();
        if request.token != "good" {
            return Err(status(ErrorCode::Unauthenticated, "the token is not valid", Some("ask for a new one")));
        }
        Ok(Response::new(self.sign(&request.csr_pem, &request.name)))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolReply>, Status> {
        if request.peer_certs().is_none_or(|certs| certs.is_empty()) {
            return Err(status(ErrorCode::Unauthenticated, "no certificate", None));
        }
        Ok(Response::new(self.sign(&request.into_inner().csr_pem, "bank-a")))
    }
}

/// Starts the service on loopback; answers its address and the CA's fingerprint.
async fn start(names: &[&str], wrong_reply: bool) -> (SocketAddr, Fingerprint) {
    let ca = ca();
    let fingerprint = Fingerprint::of_pem(&ca.pem).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &ca.issuer).unwrap();
    let chain = format!("{}{}", leaf.pem(), ca.pem);
    let tls = ServerTlsConfig::new()
        .identity(tonic::transport::Identity::from_pem(chain, key.serialize_pem()))
        .client_ca_root(Certificate::from_pem(&ca.pem))
        .client_auth_optional(true);
    let reply_ca = if wrong_reply { super::tests::ca().pem } else { ca.pem.clone() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = EnrolmentServer::new(Office { ca, reply_ca });
    let server = Server::builder().tls_config(tls).unwrap().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, fingerprint)
}

#[tokio::test]
async fn an_enrolled_identity_can_be_loaded_used_and_renewed() {
    let (address, fingerprint) = start(&["127.0.0.1", "localhost"], false).await;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("new/identity");
    let url = format!("https://{address}/");
    let enrolled = enrol(&url, "good", &fingerprint.to_string().to_uppercase(), "bank-a", &dir).await.unwrap();
    assert!(enrolled.approved && enrolled.expires_at_ms == 7);
    let identity = load(&dir).unwrap();
    assert_eq!(identity, enrolled.identity);
    assert_eq!((identity.name.as_str(), identity.role.as_str()), ("bank-a", "client"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // The mutual-TLS channel works by address and by name.
    for url in [identity.url.clone(), format!("https://localhost:{}", address.port())] {
        let renewed = renew(&Identity { url, ..identity.clone() }, &dir).await.unwrap();
        assert_eq!(load(&dir).unwrap().cert_pem, renewed.identity.cert_pem);
        assert_eq!(renewed.identity.key_pem, identity.key_pem);
    }
    // A folder that holds an identity is left alone.
    let again = enrol(&url, "good", &fingerprint.to_string(), "bank-a", &dir).await.unwrap_err();
    assert!(matches!(again, IdentityError::Exists { .. }));
}

#[tokio::test]
async fn a_certificate_is_renewed_in_the_last_third_of_its_life() {
    let (address, fingerprint) = start(&["127.0.0.1"], false).await;
    let dir = tempfile::tempdir().unwrap();
    let url = format!("https://{address}");
    let identity = enrol(&url, "good", &fingerprint.to_string(), "bank-a", dir.path()).await.unwrap().identity;
    // The office signs with rcgen's usual life, from 1975 to 4096.
    assert!(renew_if_due(&identity, dir.path(), 1_800_000_000).await.unwrap().is_none());
    assert_eq!(load(dir.path()).unwrap(), identity);
    let late = 63_000_000_000;
    let renewed = renew_if_due(&identity, dir.path(), late).await.unwrap().unwrap().identity;
    assert_ne!(renewed.cert_pem, identity.cert_pem);
    assert_eq!(load(dir.path()).unwrap(), renewed);
    // Nothing is asked for that could not be kept.
    let gone = dir.path().join("gone");
    assert!(matches!(renew_if_due(&identity, &gone, late).await, Err(IdentityError::Io { .. })));
}

#[test]
fn the_last_third_begins_where_two_thirds_end() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["movies".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2030, 1, 1);
    params.not_after = rcgen::date_time_ymd(2030, 1, 31);
    let pem = params.self_signed(&key).unwrap().pem();
    let day = |day: i64| 1_893_456_000 + (day - 1) * 86_400;
    assert!(!renewal_due(&pem, day(1)) && !renewal_due(&pem, day(20)));
    assert!(renewal_due(&pem, day(22)) && renewal_due(&pem, day(40)));
    assert!(!renewal_due("garbage", day(1)));
}

#[tokio::test]
async fn nothing_is_trusted_that_is_not_pinned() {
    let (address, fingerprint) = start(&["127.0.0.1"], false).await;
    let dir = tempfile::tempdir().unwrap();
    let url = format!("https://{address}");
    let other = Fingerprint::of_pem(&ca().pem).unwrap().to_string();
    let error = enrol(&url, "good", &other, "a", dir.path()).await.unwrap_err();
    assert!(matches!(&error, IdentityError::Pin { shown, .. } if *shown == fingerprint.to_string()), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("compare the fingerprint")));
    // Right CA, but a certificate for another host.
    let (address, fingerprint) = start(&["elsewhere.example"], false).await;
    let url = format!("https://{address}");
    let error = enrol(&url, "good", &fingerprint.to_string(), "a", dir.path()).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    // A server that proves itself, then hands out another CA.
    let (address, fingerprint) = start(&["127.0.0.1"], true).await;
    let url = format!("https://{address}");
    let error = enrol(&url, "good", &fingerprint.to_string(), "a", dir.path()).await.unwrap_err();
    assert!(matches!(error, IdentityError::Pin { .. }), "{error}");
    assert!(load(dir.path()).is_err());
}

#[tokio::test]
async fn refusals_and_bad_input_say_what_to_do() {
    let (address, fingerprint) = start(&["127.0.0.1"], false).await;
    let dir = tempfile::tempdir().unwrap();
    let pin = fingerprint.to_string();
    let url = format!("https://{address}");
    let error = enrol(&url, "bad", &pin, "a", dir.path()).await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.hint().as_deref()),
        ("the token is not valid", Some("ask for a new one"))
    );
    for url in ["http://x:1", "x:1", "https://", "https:// x"] {
        let error = enrol(url, "good", &pin, "a", dir.path()).await.unwrap_err();
        assert!(matches!(error, IdentityError::Url { .. }), "{url}: {error}");
    }
    assert!(matches!(enrol(&url, "good", "12", "a", dir.path()).await, Err(IdentityError::Fingerprint(_))));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = enrol(&format!("https://{nobody}"), "good", &pin, "a", dir.path()).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("coordinator is running")), "{error}");
    assert!(load(dir.path()).unwrap_err().to_string().contains("holds no identity"));
    // Without a certificate there is no renewal.
    let tls = ClientTlsConfig::new().domain_name("127.0.0.1");
    let verifier = std::sync::Arc::new(pinned::PinnedCa::new(fingerprint));
    let channel = endpoint(&url).unwrap().tls_config_with_verifier(tls, verifier).unwrap().connect_lazy();
    let refused = EnrolmentClient::new(channel).renew(RenewRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[test]
fn an_identity_does_not_print_its_key() {
    let identity = Identity {
        url: "https://x:1".to_owned(),
        name: "a".to_owned(),
        role: "client".to_owned(),
        ca_pem: String::new(),
        cert_pem: String::new(),
        key_pem: "SECRET".to_owned(),
    };
    assert!(!format!("{identity:?}").contains("SECRET"));
}

proptest! {
    #[test]
    fn a_fingerprint_survives_writing_and_reading(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
        let fingerprint = Fingerprint::of_der(&bytes);
        let text = fingerprint.to_string();
        prop_assert_eq!(text.parse::<Fingerprint>(), Ok(fingerprint));
        let pairs: Vec<String> = text.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
        prop_assert_eq!(format!("SHA256:{}", pairs.join(":")).parse::<Fingerprint>(), Ok(fingerprint));
    }

    #[test]
    fn a_garbage_fingerprint_never_panics(text in "\\PC{0,80}") {
        let _ = text.parse::<Fingerprint>();
    }
}
