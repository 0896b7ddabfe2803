//! Operators' certificates are short-lived; every command that
//! talks to the coordinator renews one that is due.

use std::path::Path;
use std::time::Duration;

use rondo_proto::clock::unix_millis;
use rondo_wire::identity::{self, Identity};

use crate::error::CliError;
use crate::output;

/// How long a renewal may hold a command up; the next command tries again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The identity with a certificate that lasts. Where it cannot
/// be renewed the old one is used, with a warning.
pub async fn keep_fresh(identity: Identity, dir: &Path) -> Identity {
    let renewed = tokio::time::timeout(PATIENCE, identity::renew_if_due(&identity, dir, unix_millis() / 1000)).await;
    let problem = match renewed {
        Ok(Ok(None)) => return identity,
        Ok(Ok(Some(enrolled))) => return enrolled.identity,
        Ok(Err(error)) => CliError::from(error),
        Err(_) => CliError::failed("the coordinator did not answer in time"),
    };
    let fix = "it is tried again with the next command; `rondo doctor` shows until when it is valid";
    let message = format!("this operator's certificate is due and could not be renewed: {}", problem.message);
    output::warn(&CliError::failed(message).hint(problem.hint.unwrap_or_else(|| fix.to_owned())));
    identity
}
