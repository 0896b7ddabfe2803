//! Who calls: the peer certificate of a request, looked up in the store at every call.

use rondo_proto::ClientId;
use rondo_proto::error::{ErrorCode, status};
use tonic::{Request, Status};

use super::Shared;
use crate::members::{Member, Refused};
use crate::tls::Role;
use crate::tls::peer::PeerCertificate;

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let hint = match &refused {
            Refused::Store(_) => return status(ErrorCode::Unavailable, refused.to_string(), None),
            Refused::Unknown { .. } => "it was replaced or enrolled elsewhere; join again with a new token",
            Refused::Revoked { .. } => "ask an operator for a new join token",
            Refused::Expired { .. } => "check the clocks on both sides; join again with a new token if it has expired",
        };
        status(ErrorCode::Unauthenticated, refused.to_string(), Some(hint))
    }
}

impl Shared {
    /// The member that calls, whatever its role.
    pub(crate) fn member<T>(&self, request: &Request<T>) -> Result<Member, Status> {
        let certificates = request.peer_certs();
        let leaf = certificates.as_ref().and_then(|certificates| certificates.first()).ok_or_else(|| {
            status(
                ErrorCode::Unauthenticated,
                "this call needs a certificate and none was shown",
                Some("clients enrol with `rondo-client join`, operators use `rondo --identity DIR`"),
            )
        })?;
        let peer = PeerCertificate::parse(leaf)
            .map_err(|e| status(ErrorCode::Unauthenticated, e.to_string(), Some("join again with a new token")))?;
        Ok(Member::admit(&*self.store, &peer, self.clock.now())?)
    }

    fn member_as<T>(&self, request: &Request<T>, role: Role) -> Result<Member, Status> {
        let member = self.member(request)?;
        if member.role != role {
            let message = format!("{} `{}` may not call this, only a {role} may", member.role, member.name);
            return Err(status(ErrorCode::PermissionDenied, message, None));
        }
        Ok(member)
    }

    /// The client that calls.
    pub(crate) fn client<T>(&self, request: &Request<T>) -> Result<ClientId, Status> {
        let member = self.member_as(request, Role::Client)?;
        // Names were checked when they enrolled.
        ClientId::new(member.name).map_err(super::invalid)
    }

    /// The operator that calls; its name.
    pub(crate) fn operator<T>(&self, request: &Request<T>) -> Result<String, Status> {
        Ok(self.member_as(request, Role::Operator)?.name)
    }
}
