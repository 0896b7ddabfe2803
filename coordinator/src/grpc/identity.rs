//! Who calls: the peer certificate of a request, looked up in the store at every call.
//!
//! [`AuthInterceptor`] checks calls of the Federation and the Administration service and refuses a
//! call by its headers, before a byte of its message is read. Enrolment is open to callers without
//! a certificate; its renewals look the caller up themselves.

use std::sync::Arc;

use rondo_proto::ClientId;
use rondo_proto::error::ErrorCode;
use rondo_wire::status::status;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::Shared;
use crate::members::{AccessDenied, Member};
use crate::tls::Role;
use crate::tls::peer::PeerCertificate;

impl From<AccessDenied> for Status {
    fn from(refused: AccessDenied) -> Self {
        let hint = match &refused {
            AccessDenied::Store(_) => return status(ErrorCode::Unavailable, refused.to_string(), None),
            AccessDenied::Unknown { .. } => "it was replaced or enrolled elsewhere; join again with a new token",
            AccessDenied::Revoked { .. } => "ask an operator for a new join token",
            AccessDenied::Expired { .. } => {
                "check the clocks on both sides; join again with a new token if it has expired"
            }
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
        Ok(Member::authenticate(&*self.store, &peer, self.clock.now())?)
    }
}

/// Lets members of one role through, and tells the service who calls.
#[derive(Clone)]
pub struct AuthInterceptor {
    /// What the services share.
    pub shared: Arc<Shared>,
    /// The role that may call.
    pub role: Role,
}

impl Interceptor for AuthInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let member = self.shared.member(&request)?;
        let role = self.role;
        if member.role != role {
            let message = format!("{} `{}` may not call this, only a {role} may", member.role, member.name);
            return Err(status(ErrorCode::PermissionDenied, message, None));
        }
        request.extensions_mut().insert(Caller(member));
        Ok(request)
    }
}

/// The member that the gate let through.
#[derive(Clone)]
struct Caller(Member);

fn caller<T>(request: &Request<T>, role: Role) -> Result<&Member, Status> {
    match request.extensions().get() {
        Some(Caller(member)) if member.role == role => Ok(member),
        // A service without its interceptor admits nobody.
        _ => Err(status(ErrorCode::Internal, "the call did not pass the interceptor of its service", None)),
    }
}

/// The client that calls.
pub(crate) fn client<T>(request: &Request<T>) -> Result<ClientId, Status> {
    // Names were checked when they enrolled.
    ClientId::new(caller(request, Role::Client)?.name.as_str()).map_err(super::invalid)
}

/// The operator that calls; its name.
pub(crate) fn operator<T>(request: &Request<T>) -> Result<String, Status> {
    Ok(caller(request, Role::Operator)?.name.clone())
}
