//! Who may call: one record per client or operator, with the certificates that count. Read at every
//! call, so that a revocation holds at once, on open connections too.

use rondo_proto::v1;
use serde::{Deserialize, Serialize};

use crate::clock::Millis;
use crate::store::{Batch, Store, StoreError, record};
use crate::tls::Role;
use crate::tls::peer::PeerCertificate;

/// Certificates kept per member: the present one, and the one before it for a renewal whose reply
/// was lost.
const CERTIFICATES: usize = 2;

/// A client or an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name, the CN of its certificates.
    pub name: String,
    /// Its role, their OU.
    pub role: Role,
    /// True once it was shut out.
    pub revoked: bool,
    /// When it enrolled.
    pub enrolled_at_ms: Millis,
    /// Certificates that count, newest last.
    pub certificates: Vec<MemberCertificate>,
}

/// One certificate of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCertificate {
    /// SHA-256, hex.
    pub fingerprint: String,
    /// End of its validity.
    pub expires_ms: Millis,
}

/// Why a certificate does not let its holder in.
#[derive(Debug, thiserror::Error)]
pub enum AccessDenied {
    /// The store does not know the name or the fingerprint.
    #[error("the certificate of {role} `{name}` is not one this coordinator has on record")]
    Unknown {
        /// Role in the certificate.
        role: Role,
        /// Name in the certificate.
        name: String,
    },
    /// The member was shut out.
    #[error("{role} `{name}` was revoked")]
    Revoked {
        /// Its role.
        role: Role,
        /// Its name.
        name: String,
    },
    /// Not yet or no longer valid.
    #[error("the certificate of {role} `{name}` has expired or is not valid yet")]
    Expired {
        /// Its role.
        role: Role,
        /// Its name.
        name: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn prefix(role: Role) -> String {
    format!("member/{role}/")
}

fn key(role: Role, name: &str) -> String {
    format!("{}{name}", prefix(role))
}

impl Member {
    /// A member with its first certificate.
    pub fn new(name: &str, role: Role, now: Millis, certificate: MemberCertificate) -> Self {
        Self { name: name.to_owned(), role, revoked: false, enrolled_at_ms: now, certificates: vec![certificate] }
    }

    /// The member of that name and role.
    ///
    /// # Errors
    /// The store cannot be read, or the record is damaged or of another version.
    pub fn find(store: &dyn Store, role: Role, name: &str) -> Result<Option<Self>, StoreError> {
        let key = key(role, name);
        store.get(&key)?.map(|bytes| record::decode(&key, &bytes)).transpose()
    }

    /// All members of a role, by name.
    ///
    /// # Errors
    /// The store cannot be read, or a record is damaged or of another version.
    pub fn all(store: &dyn Store, role: Role) -> Result<Vec<Self>, StoreError> {
        store.scan(&prefix(role))?.iter().map(|(key, bytes)| record::decode(key, bytes)).collect()
    }

    /// Writes the record.
    ///
    /// # Errors
    /// The record cannot be written as JSON.
    pub fn put(&self, batch: &mut Batch) -> Result<(), StoreError> {
        let key = key(self.role, &self.name);
        let bytes = record::encode(&key, self)?;
        batch.put(key, bytes);
        Ok(())
    }

    /// Adds a renewed certificate; the oldest ones stop counting.
    pub fn renew(&mut self, certificate: MemberCertificate) {
        self.certificates.push(certificate);
        let surplus = self.certificates.len().saturating_sub(CERTIFICATES);
        self.certificates.drain(..surplus);
    }

    /// The member a certificate stands for, if it still counts.
    ///
    /// # Errors
    /// The member is unknown or revoked, the certificate is not on record or not valid at `now`, or
    /// the store cannot be read.
    pub fn authenticate(store: &dyn Store, peer: &PeerCertificate, now: Millis) -> Result<Self, AccessDenied> {
        let role = peer.role;
        let name = peer.name.clone();
        let Some(member) = Self::find(store, role, &name)? else { return Err(AccessDenied::Unknown { role, name }) };
        if member.revoked {
            return Err(AccessDenied::Revoked { role, name });
        }
        if !member.certificates.iter().any(|c| c.fingerprint == peer.fingerprint) {
            return Err(AccessDenied::Unknown { role, name });
        }
        if now < peer.not_before_ms || now >= peer.not_after_ms {
            return Err(AccessDenied::Expired { role, name });
        }
        Ok(member)
    }

    /// As operators see an operator.
    pub fn operator_info(&self) -> v1::OperatorInfo {
        v1::OperatorInfo {
            name: self.name.clone(),
            state: if self.revoked { "revoked" } else { "active" }.to_owned(),
            enrolled_at_ms: self.enrolled_at_ms,
            certificate_expires_ms: self.certificates.last().map_or(0, |c| c.expires_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mem::MemStore;

    fn certificate(fingerprint: &str) -> MemberCertificate {
        MemberCertificate { fingerprint: fingerprint.into(), expires_ms: 1000 }
    }

    fn peer(fingerprint: &str) -> PeerCertificate {
        PeerCertificate {
            name: "movies".into(),
            role: Role::Client,
            fingerprint: fingerprint.into(),
            not_before_ms: 0,
            not_after_ms: 1000,
        }
    }

    fn keep(store: &MemStore, member: &Member) {
        let mut batch = Batch::new();
        member.put(&mut batch).unwrap();
        store.commit(&batch).unwrap();
    }

    #[test]
    fn only_recorded_certificates_in_time_of_the_right_role_are_admitted() {
        let store = MemStore::new();
        assert!(matches!(Member::authenticate(&store, &peer("f1"), 5), Err(AccessDenied::Unknown { .. })));
        let mut member = Member::new("movies", Role::Client, 1, certificate("f1"));
        keep(&store, &member);
        assert_eq!(Member::authenticate(&store, &peer("f1"), 5).unwrap(), member);
        assert!(matches!(Member::authenticate(&store, &peer("f2"), 5), Err(AccessDenied::Unknown { .. })));
        assert!(matches!(Member::authenticate(&store, &peer("f1"), 1000), Err(AccessDenied::Expired { .. })));
        let operator = PeerCertificate { role: Role::Operator, ..peer("f1") };
        assert!(matches!(Member::authenticate(&store, &operator, 5), Err(AccessDenied::Unknown { .. })));

        member.renew(certificate("f2"));
        keep(&store, &member);
        assert!(Member::authenticate(&store, &peer("f1"), 5).is_ok(), "the one before still counts");
        member.renew(certificate("f3"));
        keep(&store, &member);
        assert!(matches!(Member::authenticate(&store, &peer("f1"), 5), Err(AccessDenied::Unknown { .. })));

        member.revoked = true;
        keep(&store, &member);
        assert!(matches!(Member::authenticate(&store, &peer("f3"), 5), Err(AccessDenied::Revoked { .. })));
    }
}
