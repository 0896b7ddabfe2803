//! `rondo join`: a one-time token becomes an operator's identity.

use std::path::PathBuf;

use clap::Args;
use rondo_wire::identity::{self, Enrolled};
use serde::Serialize;

use crate::context::Context;
use crate::error::CliError;
use crate::output::facts;
use crate::text::moment;

/// Enrols this operator. The private key is made here and stays here.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rondo join https://fl.example.org:7461 --token TOKEN --ca-fingerprint SHA256 --name alice"
)]
pub struct JoinArgs {
    /// Address of the coordinator, https://host:port
    url: String,
    /// The one-time token, from `rondo operator add`
    #[arg(long)]
    token: String,
    /// SHA-256 of the coordinator's CA certificate; nothing else is trusted
    #[arg(long, value_name = "SHA256")]
    ca_fingerprint: String,
    /// Name to ask for, when the token leaves the choice
    #[arg(long, default_value = "")]
    name: String,
    /// Folder for the identity [default: the one of --identity]
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Joined {
    name: String,
    role: String,
    url: String,
    dir: PathBuf,
    expires_at_ms: i64,
}

/// Enrols.
///
/// # Errors
/// The identity folder is not known or holds an identity already, the server does not show the
/// named CA, the coordinator refuses, or a file cannot be written.
pub async fn run(args: JoinArgs, context: &mut Context) -> Result<(), CliError> {
    let dir = args.dir.map_or_else(|| context.identity_dir(), Ok)?;
    let Enrolled { identity, expires_at_ms, .. } =
        identity::enrol(&args.url, &args.token, &args.ca_fingerprint, &args.name, &dir).await?;
    let joined = Joined { name: identity.name, role: identity.role, url: identity.url, dir, expires_at_ms };
    context.output.show(&joined, |joined| {
        facts(&[
            ("enrolled as", format!("{} ({})", joined.name, joined.role)),
            ("coordinator", joined.url.clone()),
            ("identity in", joined.dir.display().to_string()),
            ("certificate until", moment(joined.expires_at_ms)),
        ])
    })
}
