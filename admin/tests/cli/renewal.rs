//! An operator's certificate near its end, and a coordinator that does not answer.

use std::net::TcpListener;

use rcgen::{CertificateParams, KeyPair};
use rondo_wire::identity::Identity;

use crate::program::{output_of, rondo};

#[test]
fn a_renewal_that_fails_is_a_warning_beside_the_commands_own_end() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // (first year, last year, warned): long before the last third, and long past it.
    for (from, to, warned) in [(2020, 4000, false), (1980, 1990, true)] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["alice".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let pem = params.self_signed(&key).unwrap().pem();
        let identity = Identity {
            url: format!("https://{nobody}"),
            name: "alice".to_owned(),
            role: "operator".to_owned(),
            ca_pem: pem.clone(),
            cert_pem: pem,
            key_pem: key.serialize_pem(),
        };
        let folder = dir.path().join(".config/rondo");
        identity.save(&folder).unwrap();
        let (code, out, err) = output_of(&rondo(dir.path(), &["run", "list"]));
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert_eq!(
            err.contains("warning: this operator's certificate is due and could not be renewed"),
            warned,
            "{err}"
        );
        assert!(err.contains("error: "), "{err}");
        assert_eq!(rondo_wire::identity::load(&folder).unwrap(), identity);
    }
}
