//! Certificates are short-lived; the daemon renews its own while the old one is still good.

use std::path::PathBuf;
use std::time::Duration;

use rondo_proto::clock::unix_millis;
use rondo_wire::identity::{self, Identity};

use crate::api::GrpcApi;

/// How often the certificate is looked at.
const EVERY: Duration = Duration::from_secs(600);

/// Looks at the certificate from time to time and renews it in the last third of its life. A failure is tried again at
/// the next look.
pub async fn keep_fresh(mut identity: Identity, dir: PathBuf, api: GrpcApi) {
    loop {
        if due(&identity.cert_pem, unix_millis() / 1000) {
            let renewed = identity::renew(&identity, &dir).await.and_then(|enrolled| {
                api.replace(identity::channel(&enrolled.identity)?);
                Ok(enrolled.identity)
            });
            match renewed {
                Ok(renewed) => {
                    tracing::info!(client = renewed.name, "certificate renewed");
                    identity = renewed;
                }
                Err(error) => {
                    let hint = error.hint().unwrap_or_else(|| "it is tried again in ten minutes".to_owned());
                    tracing::error!(%error, hint, "the certificate could not be renewed");
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Whether less than a third of the certificate's life is left at `now` (seconds since 1970). One that cannot be read is
/// not renewed: the coordinator will say what is wrong with it.
fn due(cert_pem: &str, now: i64) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes()) else { return false };
    let Ok(certificate) = pem.parse_x509() else { return false };
    let validity = certificate.validity();
    let (begin, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    now >= end - (end - begin) / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_in_the_last_third_of_its_life() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["movies".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 31);
        let pem = params.self_signed(&key).unwrap().pem();
        let day = |day: i64| 1_893_456_000 + (day - 1) * 86_400;
        assert!(!due(&pem, day(1)) && !due(&pem, day(20)));
        assert!(due(&pem, day(22)) && due(&pem, day(40)));
        assert!(!due("garbage", day(1)));
    }
}
