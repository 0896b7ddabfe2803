//! `rondo token`: one-time tokens with which clients join.

use std::time::Duration;

use clap::Subcommand;
use rondo_proto::clock::unix_millis;
use rondo_proto::v1::{CreateTokenReply, CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, TokenInfo};
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;
use crate::output::{facts, table};
use crate::text::{moment, parse_span};

/// Commands about join tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Makes a token for one client and prints how it joins; the token is shown this once
    #[command(after_help = "Example:
  rondo token create --name hospital-a --ttl 2h
  rondo token create --renew hospital-a

A token of --renew gives a client that is enrolled a new certificate: one whose certificate has expired or whose key was
lost, or one that was revoked and is to be let in again. It keeps its name, its approval and its history, and its older
certificates count no more.")]
    Create {
        /// Fixes the client's name; without it the client chooses
        #[arg(long, default_value = "", conflicts_with = "renew")]
        name: String,
        /// For a client that is enrolled and needs a new certificate: its name
        #[arg(long, value_name = "NAME", conflicts_with = "needs_approval")]
        renew: Option<String>,
        /// How long it can be used: 90s, 15m, 24h, 7d [default: the coordinator's, one day]
        #[arg(long, value_parser = parse_span)]
        ttl: Option<Duration>,
        /// The client gets no work until `rondo client approve`
        #[arg(long)]
        needs_approval: bool,
    },
    /// Lists tokens, used ones too
    #[command(after_help = "Example:\n  rondo token list")]
    List,
    /// Makes a token worthless that was not used yet
    #[command(after_help = "Example:\n  rondo token revoke 3f9a0c")]
    Revoke {
        /// The token's id, from `rondo token list`
        id: String,
    },
}

/// Does a command about tokens.
///
/// # Errors
/// There is no usable identity, the coordinator cannot be reached or refuses, or the result cannot
/// be printed.
pub async fn run(command: TokenCommand, context: &mut Context) -> Result<(), CliError> {
    match command {
        TokenCommand::Create { name, renew, ttl, needs_approval } => {
            let renews = renew.is_some();
            let (name, role) = (renew.unwrap_or(name), "client".to_owned());
            let request = CreateTokenRequest { name, role, ttl_s: seconds(ttl), needs_approval, renews };
            create(request, context, "rondo-client join", if renews { "--dir DIR --renew" } else { "--dir DIR" }).await
        }
        TokenCommand::List => {
            let reply = context.administration().await?.list_tokens(ListTokensRequest {}).await?.into_inner();
            context.output.show(&reply, |reply| list(&reply.tokens))
        }
        TokenCommand::Revoke { id } => {
            context.administration().await?.revoke_token(RevokeTokenRequest { id: id.clone() }).await?;
            context.output.show(&json!({ "revoked": id }), |_| format!("token {id} is revoked"))
        }
    }
}

/// A token's life for the wire: 0 takes the coordinator's default.
pub(super) fn seconds(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| ttl.as_secs())
}

/// Makes a token and prints it with the command that uses it.
pub(super) async fn create(
    request: CreateTokenRequest,
    context: &mut Context,
    join: &str,
    rest: &str,
) -> Result<(), CliError> {
    let reply = context.administration().await?.create_token(request).await?.into_inner();
    // The operator's own way to the coordinator is the best guess for the joiner's.
    let url = context.identity().map_or_else(|_| "URL".to_owned(), |identity| identity.url);
    context.output.show(&reply, |reply| {
        let CreateTokenReply { info, token, ca_fingerprint } = reply;
        let info = info.clone().unwrap_or_default();
        let about = facts(&[
            ("token", token.clone()),
            ("id", info.id),
            ("for", info.name),
            ("role", info.role),
            ("valid until", moment(info.expires_at_ms)),
            ("approval", if info.needs_approval { "needed".to_owned() } else { String::new() }),
            ("CA fingerprint", ca_fingerprint.clone()),
        ]);
        format!("{about}\njoin with:\n  {join} {url} --token {token} --ca-fingerprint {ca_fingerprint} {rest}")
    })
}

fn list(tokens: &[TokenInfo]) -> String {
    let now = unix_millis();
    let row = |token: &TokenInfo| {
        let state = match token {
            token if token.used => format!("used by {}", token.used_by),
            token if token.expires_at_ms > 0 && token.expires_at_ms <= now => "expired".to_owned(),
            token if token.renews => "open, renews".to_owned(),
            token if token.needs_approval => "open, approval needed".to_owned(),
            _ => "open".to_owned(),
        };
        let name = if token.name.is_empty() { "any".to_owned() } else { token.name.clone() };
        vec![token.id.clone(), token.role.clone(), name, state, moment(token.expires_at_ms)]
    };
    table(&["ID", "ROLE", "FOR", "STATE", "VALID UNTIL"], tokens.iter().map(row).collect(), "no tokens")
}
