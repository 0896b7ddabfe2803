//! `rondo-client join`: enrols this machine at a coordinator.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rondo_wire::identity::{self, Enrolled, IdentityError};
use serde_json::json;

use crate::home::{Home, HomeError};

/// Enrols at a coordinator: a key is made here and stays here, a certificate comes back
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rondo-client join https://coordinator.example:7461 --token 4f1c... --ca-fingerprint 9a0b... --dir ~/rondo --name movies

  rondo-client join https://coordinator.example:7461 --token 4f1c... --ca-fingerprint 9a0b... --dir ~/rondo --renew

An operator makes the token with `rondo token create`, or `rondo token create --renew NAME` for a client whose identity has
expired or was revoked; `rondo-coordinator init` prints the fingerprint.")]
pub struct JoinArgs {
    /// Address of the coordinator, https://host:port
    pub url: String,
    /// One-time join token
    #[arg(long, env = "RONDO_TOKEN", hide_env_values = true)]
    pub token: String,
    /// SHA-256 of the coordinator's CA certificate, 64 hexadecimal digits
    #[arg(long, value_name = "SHA256")]
    pub ca_fingerprint: String,
    /// Folder of this client: identity, spool, cache
    #[arg(long)]
    pub dir: PathBuf,
    /// Name asked for; not needed where the token fixes one
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    /// Put a new identity in the place of one that has expired or was revoked; ledger, spool and all
    /// else in the folder stay
    #[arg(long, conflicts_with_all = ["name", "keep_ledger"])]
    pub renew: bool,
    /// Join as a new client with a folder that holds a privacy ledger: what it has spent stays spent
    #[arg(long)]
    pub keep_ledger: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The enrolment.
    #[error("{source}{}", .source.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Identity {
        /// What went wrong.
        #[from]
        source: IdentityError,
    },
    /// The coordinator made this an operator.
    #[error("the token was an operator's: this folder is an identity for `rondo`, not for a client")]
    Role,
    /// The folder holds what another client has spent.
    #[error(
        "{} holds a privacy ledger and no identity: it was a client's\nhint: was it this one? restore its identity.toml, or \
         renew it with `--renew`; is it to be another client, which goes on from what was spent? give `--keep-ledger`; \
         otherwise choose another folder, and keep this one",
        .dir.display()
    )]
    HoldsLedger {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The outcome cannot be printed.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

/// Enrols and prints the outcome.
///
/// # Errors
/// The enrolment fails, the token is an operator's, or the outcome cannot be printed.
pub async fn join(args: &JoinArgs, out: &mut dyn Write) -> Result<(), JoinError> {
    // A daemon that runs would go on with the old key.
    let home = Home::open(&args.dir)?;
    let holds_ledger = [home.ledger(), home.ledger().with_extension("head")].iter().any(|path| path.exists());
    let enrolled = if args.renew {
        identity::renew_by_token(&args.url, &args.token, &args.ca_fingerprint, &args.dir).await?
    } else {
        if holds_ledger && !args.keep_ledger && !args.dir.join("identity.toml").exists() {
            return Err(JoinError::HoldsLedger { dir: args.dir.clone() });
        }
        identity::enrol(&args.url, &args.token, &args.ca_fingerprint, &args.name, &args.dir).await?
    };
    print(&enrolled, &args.dir, args.json, out)?;
    if enrolled.identity.role == "client" { Ok(()) } else { Err(JoinError::Role) }
}

fn print(enrolled: &Enrolled, dir: &Path, as_json: bool, out: &mut dyn Write) -> io::Result<()> {
    let identity = &enrolled.identity;
    if as_json {
        let report = json!({
            "name": identity.name,
            "role": identity.role,
            "url": identity.url,
            "dir": dir,
            "approved": enrolled.approved,
            "expires_at_ms": enrolled.expires_at_ms,
        });
        return writeln!(out, "{report}");
    }
    writeln!(out, "joined {} as {}", identity.url, identity.name)?;
    if !enrolled.approved {
        writeln!(out, "an operator must still approve it: rondo client approve {}", identity.name)?;
    }
    writeln!(
        out,
        "next: write {} and start: rondo-client run --dir {}",
        dir.join("client.toml").display(),
        dir.display()
    )
}
