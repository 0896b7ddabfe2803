//! Enrolment: a one-time token and a certificate request become a member with a certificate.

use std::sync::Arc;

use rondo_proto::ClientId;
use rondo_proto::error::ErrorCode;
use rondo_proto::v1::{EnrolReply, EnrolRequest, RenewRequest};
use rondo_rounds::Input;
use rondo_wire::status::status;
use rondo_wire::stubs::enrolment_server::Enrolment;
use tonic::{Request, Response, Status};

use super::{Shared, invalid};
use crate::members::{Member, MemberCertificate};
use crate::store::Batch;
use crate::tls::ca::{IssuedCertificate, public_key};
use crate::tls::{Role, TlsError};
use crate::tokens::{TokenError, TokenRecord};

/// The service.
pub struct EnrolmentService(pub Arc<Shared>);

impl From<TokenError> for Status {
    fn from(error: TokenError) -> Self {
        let code = match &error {
            TokenError::Unknown | TokenError::Used { .. } | TokenError::Expired { .. } => ErrorCode::Unauthenticated,
            TokenError::Random(_) => ErrorCode::Internal,
            TokenError::Store(_) => ErrorCode::Unavailable,
        };
        let hint = "ask an operator for a new one (`rondo token create`); a token works once and for a limited time";
        status(code, error.to_string(), (code == ErrorCode::Unauthenticated).then_some(hint))
    }
}

impl From<TlsError> for Status {
    fn from(error: TlsError) -> Self {
        let code = match &error {
            TlsError::Request(_) => ErrorCode::InvalidArgument,
            _ => ErrorCode::Internal,
        };
        status(code, error.to_string(), None)
    }
}

impl From<&IssuedCertificate> for MemberCertificate {
    fn from(issued: &IssuedCertificate) -> Self {
        Self { fingerprint: issued.fingerprint.clone(), expires_ms: issued.expires_ms }
    }
}

impl Shared {
    fn issue(&self, csr_pem: &str, role: Role, name: &str) -> Result<IssuedCertificate, Status> {
        let days = self.config.client_certificate_days;
        Ok(self.authority.issue_peer(csr_pem, role, name, self.clock.now(), days)?)
    }

    /// Whether a client waits for no operator.
    async fn is_approved(&self, client: ClientId) -> Result<bool, Status> {
        let state = self.driver.view(move |engine| engine.client(&client).map(|info| info.state)).await?;
        Ok(state.as_deref() != Some("pending"))
    }

    fn enrol_reply(&self, issued: IssuedCertificate, role: Role, name: &str, approved: bool) -> Response<EnrolReply> {
        Response::new(EnrolReply {
            certificate_pem: issued.pem,
            ca_pem: self.authority.pem().to_owned(),
            name: name.to_owned(),
            role: role.to_string(),
            expires_at_ms: issued.expires_ms,
            approved,
        })
    }
}

/// The name that joins: the token's, which the requester may repeat, or the requester's.
fn joining_name(token: &TokenRecord, asked: &str) -> Result<ClientId, Status> {
    let name = match (token.name.as_str(), asked) {
        ("", "") => {
            let hint = Some("name yourself with `--name`");
            return Err(status(ErrorCode::InvalidArgument, "neither the token nor the request gives a name", hint));
        }
        ("", asked) => asked,
        (fixed, "") => fixed,
        (fixed, asked) if fixed == asked => fixed,
        (fixed, asked) => {
            let message = format!("the token is for `{fixed}`, not for `{asked}`");
            return Err(status(
                ErrorCode::PermissionDenied,
                message,
                Some("leave `--name` out or use the token's name"),
            ));
        }
    };
    ClientId::new(name).map_err(invalid)
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let shared = &self.0;
        let EnrolRequest { token, csr_pem, name } = request.into_inner();
        let now = shared.clock.now();
        let public_key = public_key(&csr_pem)?;

        // From here on no other enrolment runs, so that a token cannot be found unused twice.
        let _writing = shared.writing.lock().await;
        let mut token = TokenRecord::find(&*shared.store, &token, &public_key, now)?;
        let name = joining_name(&token, &name)?;
        let role = token.role;
        let known = Member::find(&*shared.store, role, name.as_str())?;
        // The key that used the token asks again because its answer was lost.
        let is_again = !token.used_by.is_empty();
        // Only the certificate that the token gave is given again: a member that was revoked since,
        // or has a newer one, does not come back by an old token.
        let is_latest = |member: &Member| {
            !member.revoked && member.certificates.last().is_some_and(|newest| newest.fingerprint == token.issued)
        };
        let holder = known.filter(|member| if is_again { is_latest(member) } else { token.renews || !member.revoked });
        if holder.is_some() && !token.renews && !is_again {
            let hint = format!(
                "is it the same one, with an identity that was lost or expired? `rondo token create --renew {name}`; another one \
                 chooses another name"
            );
            return Err(status(ErrorCode::AlreadyExists, format!("{role} `{name}` is enrolled already"), Some(&hint)));
        }
        if holder.is_none() && (token.renews || is_again) {
            let message = format!("{role} `{name}` was revoked, or has a newer certificate, since the token was used");
            return Err(status(ErrorCode::FailedPrecondition, message, Some("join with a new token")));
        }
        let issued = shared.issue(&csr_pem, role, name.as_str())?;

        let mut batch = Batch::new();
        token.use_up(name.as_str(), &public_key, &issued.fingerprint, now);
        token.put(&mut batch)?;
        let was_revoked = holder.as_ref().is_some_and(|member| member.revoked);
        let mut member = Member::new(name.as_str(), role, now, MemberCertificate::from(&issued));
        // Of all certificates the new one alone counts from now on.
        member.enrolled_at_ms = holder.as_ref().map_or(now, |holder| holder.enrolled_at_ms);
        member.put(&mut batch)?;
        let mut approved = !token.needs_approval || role == Role::Operator;
        let (fingerprint, expires) = (issued.fingerprint.clone(), issued.expires_ms);
        match role {
            Role::Client if holder.is_some() && !was_revoked => {
                shared.driver.step_with(Input::Renewed { client: name.clone(), fingerprint, expires }, batch).await?;
                approved = shared.is_approved(name.clone()).await?;
            }
            Role::Client => {
                let input = Input::Enrolled { client: name.clone(), fingerprint, expires, approved };
                shared.driver.step_with(input, batch).await?;
            }
            Role::Operator => shared.driver.commit(batch).await?,
        }
        tracing::info!(%role, %name, token = token.id, approved, renewed = holder.is_some(), "enrolled");
        Ok(shared.enrol_reply(issued, role, name.as_str(), approved))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolReply>, Status> {
        let shared = &self.0;
        let caller = shared.member(&request)?;
        let role = caller.role;
        let name = caller.name;
        let issued = shared.issue(&request.get_ref().csr_pem, role, &name)?;

        let _writing = shared.writing.lock().await;
        // Read again under the lock: it may have been revoked since.
        let mut member = shared.member(&request)?;
        member.renew(MemberCertificate::from(&issued));
        let mut batch = Batch::new();
        member.put(&mut batch)?;
        let mut approved = true;
        match role {
            Role::Client => {
                let client = ClientId::new(name.as_str()).map_err(invalid)?;
                let input = Input::Renewed {
                    client: client.clone(),
                    fingerprint: issued.fingerprint.clone(),
                    expires: issued.expires_ms,
                };
                shared.driver.step_with(input, batch).await?;
                approved = shared.is_approved(client).await?;
            }
            Role::Operator => shared.driver.commit(batch).await?,
        }
        tracing::info!(%role, name, expires_ms = issued.expires_ms, "certificate renewed");
        Ok(shared.enrol_reply(issued, role, &name, approved))
    }
}
