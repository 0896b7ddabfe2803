//! Tokens and operators, as operators make, read and revoke them.

use rondo_proto::ClientId;
use rondo_proto::error::ErrorCode;
use rondo_proto::v1::{ClientInfo, CreateTokenReply, CreateTokenRequest};
use rondo_rounds::{Input, Reply};
use rondo_wire::status::status;
use tonic::Status;

use super::{Shared, invalid};
use crate::members::Member;
use crate::store::Batch;
use crate::tls::Role;
use crate::tokens::{TokenPurpose, TokenRecord};

impl Shared {
    /// Makes a token; its text is in the reply and nowhere else.
    pub(crate) async fn create_token(&self, request: CreateTokenRequest) -> Result<CreateTokenReply, Status> {
        let role = if request.role.is_empty() { Role::Client } else { request.role.parse().map_err(invalid)? };
        if !request.name.is_empty() {
            ClientId::new(request.name.as_str()).map_err(invalid)?;
        }
        if request.renews {
            let known = Member::find(&*self.store, role, &request.name)?;
            known.ok_or_else(|| {
                let message = format!("there is no {role} `{}` to renew", request.name);
                let hint = Some("name one that is enrolled: `rondo client list`, `rondo operator list`");
                status(ErrorCode::NotFound, message, hint)
            })?;
        }
        let ttl_s = if request.ttl_s == 0 { self.config.token_ttl_s } else { request.ttl_s };
        let life_ms = i64::try_from(ttl_s.saturating_mul(1000)).unwrap_or(i64::MAX);
        let (record, token) = TokenRecord::mint(TokenPurpose {
            name: request.name,
            role,
            expires_at_ms: self.clock.now().saturating_add(life_ms),
            needs_approval: request.needs_approval,
            renews: request.renews,
        })?;
        let mut batch = Batch::new();
        record.put(&mut batch)?;
        self.driver.commit(batch).await?;
        let ca_fingerprint = self.authority.fingerprint().to_owned();
        Ok(CreateTokenReply { info: Some(record.info()), token, ca_fingerprint })
    }

    /// Removes a token.
    pub(crate) async fn revoke_token(&self, id: &str) -> Result<(), Status> {
        let _writing = self.writing.lock().await;
        let batch = TokenRecord::remove(&*self.store, id)?.ok_or_else(|| {
            let hint = Some("`rondo token list` shows those there are");
            status(ErrorCode::NotFound, format!("there is no token `{id}`"), hint)
        })?;
        Ok(self.driver.commit(batch).await?)
    }

    /// Shuts a client out at once: its certificates, and its part in every run.
    pub(crate) async fn revoke_client(&self, client: ClientId) -> Result<ClientInfo, Status> {
        let _writing = self.writing.lock().await;
        let batch = self.revocation(Role::Client, client.as_str())?;
        let reply = self.driver.step_with(Input::Revoke { client }, batch).await?;
        client_info(reply)
    }

    /// Gives an input about a client to the engine.
    pub(crate) async fn change_client(&self, input: Input) -> Result<ClientInfo, Status> {
        client_info(self.driver.step(input).await?)
    }

    /// Shuts an operator out at once; the last one stays.
    pub(crate) async fn revoke_operator(&self, name: &str) -> Result<(), Status> {
        let _writing = self.writing.lock().await;
        let batch = self.revocation(Role::Operator, name)?;
        let others = Member::all(&*self.store, Role::Operator)?;
        if !others.iter().any(|other| other.name != name && !other.revoked) {
            let hint = Some("add another operator first: `rondo operator add`");
            return Err(status(ErrorCode::FailedPrecondition, format!("`{name}` is the last operator"), hint));
        }
        Ok(self.driver.commit(batch).await?)
    }

    fn revocation(&self, role: Role, name: &str) -> Result<Batch, Status> {
        let member = Member::find(&*self.store, role, name)?;
        let mut member =
            member.ok_or_else(|| status(ErrorCode::NotFound, format!("there is no {role} `{name}`"), None))?;
        member.revoked = true;
        let mut batch = Batch::new();
        member.put(&mut batch)?;
        Ok(batch)
    }
}

fn client_info(reply: Reply) -> Result<ClientInfo, Status> {
    match reply {
        Reply::Client(info) => Ok(*info),
        other => {
            Err(status(ErrorCode::Internal, format!("the engine gave an answer of another kind: {other:?}"), None))
        }
    }
}
