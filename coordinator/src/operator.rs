//! `rondo-coordinator operator`: an operator's identity made on the coordinator's own machine. Whoever holds the data
//! directory holds the CA's key, so nothing is given away, and an expired first operator is not locked out for ever.

use std::path::Path;

use rondo_proto::ClientId;
use rondo_wire::identity::{self, Identity, key_and_request};

use crate::clock::{Clock, Millis};
use crate::data_dir::DataDir;
use crate::members::{Member, MemberCertificate};
use crate::set_up::SetUpError;
use crate::store::durable::DurableStore;
use crate::store::{Batch, Store, StoreError};
use crate::tls::Role;
use crate::tls::ca::Authority;

/// A new operator: its record and what it calls with.
pub(crate) fn issue_operator(
    authority: &Authority,
    name: &str,
    url: &str,
    now: Millis,
    days: u32,
) -> Result<(Member, Identity), SetUpError> {
    let (key_pem, csr_pem) = key_and_request(name)?;
    let issued = authority.issue_peer(&csr_pem, Role::Operator, name, now, days)?;
    let certificate = MemberCertificate { fingerprint: issued.fingerprint, expires_ms: issued.expires_ms };
    let identity = Identity {
        url: url.to_owned(),
        name: name.to_owned(),
        role: Role::Operator.to_string(),
        ca_pem: authority.pem().to_owned(),
        cert_pem: issued.pem,
        key_pem,
    };
    Ok((Member::new(name, Role::Operator, now, certificate), identity))
}

/// Makes an identity for a new operator, or for one whose certificate has expired or was revoked, and writes it to a
/// folder. Certificates of that name from before stop counting.
pub fn reissue(data: &DataDir, name: &str, out: &Path, days: u32, clock: &dyn Clock) -> Result<Identity, SetUpError> {
    let name = ClientId::new(name)?;
    let settled = data.settled()?;
    let _lock = data.lock().map_err(|error| match error {
        StoreError::InUse { path } => SetUpError::Serving { path },
        error => error.into(),
    })?;
    if let Ok(present) = identity::load(out)
        && (present.name != name.as_str() || present.role != Role::Operator.as_str())
    {
        return Err(SetUpError::Taken { path: out.to_owned(), name: present.name, role: present.role });
    }
    // Where `init` did not fix a port, the first operator's identity has the last one.
    let url = match identity::load(&data.operator()) {
        Ok(first) if settled.url.ends_with(":0") => first.url,
        _ => settled.url,
    };
    let now = clock.now();
    let authority = Authority::load(&data.ca())?;
    let store = DurableStore::open(&data.store())?;
    let counts = |member: &Member| !member.revoked && member.certificates.iter().any(|c| c.expires_ms > now);
    if Member::find(&store, Role::Operator, name.as_str())?.is_some_and(|member| counts(&member)) {
        return Err(SetUpError::Holds { name: name.to_string() });
    }
    let (member, identity) = issue_operator(&authority, name.as_str(), &url, now, days)?;
    // First the files: an identity that is not on record can be made again, a record without its key cannot be used.
    identity.save(out)?;
    let mut batch = Batch::new();
    member.put(&mut batch)?;
    store.commit(&batch)?;
    store.close()?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::init::{InitRequest, init};

    struct Later(Millis);

    impl Clock for Later {
        fn now(&self) -> Millis {
            SystemClock.now() + self.0
        }
    }

    #[test]
    fn an_expired_operator_is_let_in_again_and_one_that_can_call_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path().join("data"));
        init(&data, &InitRequest { port: 7461, ..Default::default() }, &SystemClock).unwrap();
        let before = identity::load(&data.operator()).unwrap();
        let refused = reissue(&data, "operator", &data.operator(), 90, &SystemClock).unwrap_err();
        assert!(refused.to_string().contains("rondo operator revoke operator"), "{refused}");
        assert_eq!(identity::load(&data.operator()).unwrap().cert_pem, before.cert_pem);

        let later = Later(100 * 86_400_000);
        let made = reissue(&data, "operator", &data.operator(), 90, &later).unwrap();
        assert_eq!((made.url.as_str(), made.role.as_str()), ("https://localhost:7461", "operator"));
        assert_ne!(identity::load(&data.operator()).unwrap().cert_pem, before.cert_pem);
        let refused = reissue(&data, "second", &data.operator(), 90, &later).unwrap_err();
        assert!(matches!(refused, SetUpError::Taken { .. }), "{refused}");
        let second = dir.path().join("second");
        reissue(&data, "second", &second, 90, &later).unwrap();
        assert_eq!(identity::load(&second).unwrap().name, "second");
        let store = DurableStore::open(&data.store()).unwrap();
        assert_eq!(Member::all(&store, Role::Operator).unwrap().len(), 2);
    }

    #[test]
    fn not_while_a_coordinator_serves() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path().join("data"));
        let missing = reissue(&data, "operator", &data.operator(), 90, &SystemClock).unwrap_err();
        assert!(missing.to_string().contains("init"), "{missing}");
        init(&data, &InitRequest { port: 7461, ..Default::default() }, &SystemClock).unwrap();
        let _lock = data.lock().unwrap();
        let refused = reissue(&data, "second", &dir.path().join("second"), 90, &SystemClock).unwrap_err();
        assert!(matches!(refused, SetUpError::Serving { .. }), "{refused}");
        assert!(!dir.path().join("second").exists());
    }
}
