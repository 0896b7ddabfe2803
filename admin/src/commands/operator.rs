//! `rondo operator`: who may steer.

use std::time::Duration;

use clap::Subcommand;
use rondo_proto::v1::{CreateTokenRequest, ListOperatorsRequest, OperatorInfo, RevokeOperatorRequest};
use serde_json::json;

use super::token;
use crate::context::Context;
use crate::error::CliError;
use crate::output::table;
use crate::text::{moment, parse_span};

/// Commands about operators.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Lists all operators
    #[command(after_help = "Example:\n  rondo operator list")]
    List,
    /// Makes a token with which a new operator enrols
    #[command(after_help = "Example:\n  rondo operator add alice --ttl 1h")]
    Add {
        /// The new operator's name
        name: String,
        /// How long the token can be used: 90s, 15m, 24h, 7d [default: the coordinator's, one day]
        #[arg(long, value_parser = parse_span)]
        ttl: Option<Duration>,
    },
    /// Shuts an operator out at once
    #[command(after_help = "Example:\n  rondo operator revoke alice")]
    Revoke {
        /// The operator's name
        name: String,
    },
}

/// Does a command about operators.
///
/// # Errors
/// There is no usable identity, the coordinator cannot be reached or refuses, or the result cannot
/// be printed.
pub async fn run(command: OperatorCommand, context: &mut Context) -> Result<(), CliError> {
    match command {
        OperatorCommand::List => {
            let reply = context.administration().await?.list_operators(ListOperatorsRequest {}).await?.into_inner();
            context.output.show(&reply, |reply| {
                let row = |operator: &OperatorInfo| {
                    let enrolled = operator.enrolled_at_ms;
                    let until = operator.certificate_expires_ms;
                    vec![operator.name.clone(), operator.state.clone(), moment(enrolled), moment(until)]
                };
                let rows = reply.operators.iter().map(row).collect();
                table(&["OPERATOR", "STATE", "ENROLLED", "CERTIFICATE UNTIL"], rows, "no operators")
            })
        }
        OperatorCommand::Add { name, ttl } => {
            let role = "operator".to_owned();
            let request =
                CreateTokenRequest { name, role, ttl_s: token::seconds(ttl), needs_approval: false, renews: false };
            token::create(request, context, "rondo join", "").await
        }
        OperatorCommand::Revoke { name } => {
            context.administration().await?.revoke_operator(RevokeOperatorRequest { name: name.clone() }).await?;
            context.output.show(&json!({ "revoked": name }), |_| format!("operator {name} is revoked"))
        }
    }
}
