//! `rondo client`: the enrolled data owners.

use clap::{Args, Subcommand};
use rondo_proto::clock::unix_millis;
use rondo_proto::v1::{ClientInfo, GetClientRequest, ListClientsRequest};

use crate::context::Context;
use crate::error::CliError;
use crate::output::{facts, table};
use crate::text::{ago, moment};

/// Commands about clients.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Lists all clients
    #[command(after_help = "Example:\n  rondo client list")]
    List,
    /// Shows one client
    #[command(after_help = "Example:\n  rondo client show hospital-a")]
    Show(Name),
    /// Lets a client take part that joined with a token that needs approval
    #[command(after_help = "Example:\n  rondo client approve hospital-a")]
    Approve(Name),
    /// Lets a client finish its work and gives it none any more
    #[command(after_help = "Example:\n  rondo client drain hospital-a")]
    Drain(Name),
    /// Shuts a client out at once; its certificate is refused from now on
    #[command(after_help = "Example:\n  rondo client revoke hospital-a")]
    Revoke(Name),
}

/// A client's name.
#[derive(Debug, Args)]
pub struct Name {
    /// The client's name
    client: String,
}

/// Does a command about clients.
///
/// # Errors
/// There is no usable identity, the coordinator cannot be reached or refuses, or the result cannot
/// be printed.
pub async fn run(command: ClientCommand, context: &mut Context) -> Result<(), CliError> {
    let mut admin = context.administration().await?;
    let request = |name: Name| GetClientRequest { client: name.client };
    let info = match command {
        ClientCommand::List => {
            let reply = admin.list_clients(ListClientsRequest {}).await?.into_inner();
            return context.output.show(&reply, |reply| list(&reply.clients));
        }
        ClientCommand::Show(name) => admin.get_client(request(name)).await?,
        ClientCommand::Approve(name) => admin.approve_client(request(name)).await?,
        ClientCommand::Drain(name) => admin.drain_client(request(name)).await?,
        ClientCommand::Revoke(name) => admin.revoke_client(request(name)).await?,
    };
    context.output.show(&info.into_inner(), details)
}

fn list(clients: &[ClientInfo]) -> String {
    let now = unix_millis();
    let row = |client: &ClientInfo| {
        vec![
            client.client.clone(),
            client.state.clone(),
            ago(client.last_seen_ms, now),
            if client.run.is_empty() { "-".to_owned() } else { client.run.clone() },
            client.datasets.join(", "),
            client.bases.len().to_string(),
            client.version.clone(),
        ]
    };
    table(
        &["CLIENT", "STATE", "SEEN", "RUN", "DATA SETS", "BASES", "VERSION"],
        clients.iter().map(row).collect(),
        "no clients; `rondo token create` makes a token for one to join with",
    )
}

fn details(client: &ClientInfo) -> String {
    let rank = if client.max_rank == 0 { "no limit".to_owned() } else { client.max_rank.to_string() };
    facts(&[
        ("client", client.client.clone()),
        ("state", client.state.clone()),
        ("enrolled", moment(client.enrolled_at_ms)),
        ("last seen", ago(client.last_seen_ms, unix_millis())),
        ("works on", client.run.clone()),
        ("data sets", client.datasets.join(", ")),
        ("base models", client.bases.join("\n             ")),
        ("largest rank", rank),
        ("version", client.version.clone()),
        ("certificate", client.certificate_fingerprint.clone()),
        ("valid until", moment(client.certificate_expires_ms)),
    ])
}
