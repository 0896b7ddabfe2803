//! `rondo-coordinator operator`: an operator's identity made on the coordinator's own machine.
//! The owner of the data directory has the CA's key anyway, so this gives nothing away. It lets an
//! operator back in whose certificate has expired.

use std::path::Path;

use rondo_proto::ClientId;
use rondo_wire::identity::{self, Identity, key_and_request};

use crate::clock::{Clock, Millis};
use crate::data_dir::DataDir;
use crate::members::{Member, MemberCertificate};
use crate::setup::SetupError;
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
) -> Result<(Member, Identity), SetupError> {
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

/// Makes an identity for a new operator, or for one whose certificate has expired or was revoked,
/// and writes it to a folder. Certificates of that name from before stop counting.
///
/// # Errors
/// The name is not valid or has a certificate that counts, `out` holds another identity, or a
/// coordinator serves from the directory. `init` did not finish, or a file or record cannot be
/// used.
pub fn reissue(data: &DataDir, name: &str, out: &Path, days: u32, clock: &dyn Clock) -> Result<Identity, SetupError> {
    let name = ClientId::new(name)?;
    let init = data.init_record()?;
    let _lock = data.lock().map_err(|error| match error {
        StoreError::InUse { path } => SetupError::Serving { path },
        error => error.into(),
    })?;
    if let Ok(present) = identity::load(out)
        && (present.name != name.as_str() || present.role != Role::Operator.as_str())
    {
        return Err(SetupError::Taken { path: out.to_owned(), name: present.name, role: present.role });
    }
    // Where `init` did not fix a port, the first operator's identity has the last one.
    let url = match identity::load(&data.operator()) {
        Ok(first) if init.url.ends_with(":0") => first.url,
        _ => init.url,
    };
    let now = clock.now();
    let authority = Authority::load(&data.ca())?;
    let store = DurableStore::open(&data.store())?;
    let counts = |member: &Member| !member.revoked && member.certificates.iter().any(|c| c.expires_ms > now);
    if Member::find(&store, Role::Operator, name.as_str())?.is_some_and(|member| counts(&member)) {
        return Err(SetupError::Holds { name: name.to_string() });
    }
    let (member, identity) = issue_operator(&authority, name.as_str(), &url, now, days)?;
    // First the files: an identity that is not on record can be made again, a record without its
    // key cannot be used.
    identity.save(out)?;
    let mut batch = Batch::new();
    member.put(&mut batch)?;
    store.commit(&batch)?;
    store.close()?;
    Ok(identity)
}

#[cfg(test)]
mod tests;
