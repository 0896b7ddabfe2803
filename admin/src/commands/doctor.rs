//! `rondo doctor`: what keeps this command line from working, and the fix.

use std::time::Instant;

use clap::Args;
use rondo_proto::clock::unix_millis;
use rondo_proto::v1::{GetInfoRequest, ListOperatorsRequest, ServerInfo};
use serde::Serialize;

use crate::context::Context;
use crate::error::CliError;
use crate::text::{moment, span};

/// Certificates are warned about when they end within so many milliseconds: a week.
const SOON_MS: i64 = 7 * 24 * 3600 * 1000;
/// Clocks may differ by so many milliseconds; certificates and deadlines depend on them.
const SKEW_MS: i64 = 30_000;

/// Checks identity, reachability, TLS, clock and versions.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rondo doctor --identity ~/.config/rondo")]
pub struct DoctorArgs {}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    found: String,
    fix: Option<String>,
}

#[derive(Debug, Serialize)]
struct Findings {
    healthy: bool,
    checks: Vec<Check>,
}

/// Checks all; fails when something is wrong.
///
/// # Errors
/// A check finds something wrong, or the result cannot be printed.
pub async fn run(_args: DoctorArgs, context: &mut Context) -> Result<(), CliError> {
    let checks = examine(context).await;
    let findings = Findings { healthy: checks.iter().all(|check| check.ok), checks };
    context.output.show(&findings, |findings| findings.checks.iter().map(line).collect())?;
    if findings.healthy { Ok(()) } else { Err(CliError::failed("something is wrong, see above")) }
}

fn line(check: &Check) -> String {
    let fix = check.fix.as_ref().map(|fix| format!("\n             fix: {fix}")).unwrap_or_default();
    format!("{:4} {:12} {}{fix}\n", if check.ok { "ok" } else { "FAIL" }, check.name, check.found)
}

fn good(name: &'static str, found: String) -> Check {
    Check { name, ok: true, found, fix: None }
}

fn bad(name: &'static str, error: CliError) -> Check {
    Check { name, ok: false, found: error.message, fix: error.hint }
}

/// Each check needs the one before it.
async fn examine(context: &Context) -> Vec<Check> {
    let identity = match context.identity() {
        Ok(identity) => identity,
        Err(error) => return vec![bad("identity", error)],
    };
    let mut checks = Vec::new();
    if identity.role == "operator" {
        checks.push(good("identity", format!("operator {} of {}", identity.name, identity.url)));
    } else {
        let error = CliError::failed(format!("{} is a {} identity", identity.name, identity.role));
        checks
            .push(bad("identity", error.hint("operators enrol with `rondo join` and a token of `rondo operator add`")));
    }
    let asked = Instant::now();
    let before = unix_millis();
    let info = match context.administration().await {
        Ok(mut client) => match client.get_info(GetInfoRequest {}).await {
            Ok(info) => Ok((client, info.into_inner())),
            Err(status) => Err(CliError::from(status)),
        },
        Err(error) => Err(error),
    };
    let (mut client, info) = match info {
        Ok(answer) => answer,
        Err(error) => {
            checks.push(bad("coordinator", error));
            return checks;
        }
    };
    let trip = asked.elapsed().as_millis();
    checks.push(good("coordinator", format!("answers over mutual TLS in {trip} ms")));
    // The coordinator read its clock somewhere between the two readings of ours.
    let now = before + i64::try_from(trip / 2).unwrap_or(0);
    checks.extend(compare(&info, now));
    match client.list_operators(ListOperatorsRequest {}).await {
        Ok(reply) => {
            let own = reply.into_inner().operators.into_iter().find(|operator| operator.name == identity.name);
            let expires = own.map_or(0, |operator| operator.certificate_expires_ms);
            let fix = "have an operator run `rondo operator add`, then enrol anew with `rondo join`";
            checks.push(lasting("certificate", expires, now, fix));
        }
        Err(status) => checks.push(bad("certificate", status.into())),
    }
    checks
}

/// Whether a certificate lasts for some time yet.
fn lasting(name: &'static str, expires_ms: i64, now_ms: i64, fix: &str) -> Check {
    let left = expires_ms.saturating_sub(now_ms);
    match expires_ms {
        0 => good(name, "it is not said until when it is valid".to_owned()),
        at if left > SOON_MS => good(name, format!("valid until {}", moment(at))),
        at => bad(name, CliError::failed(format!("ends {} (in {})", moment(at), span(left.max(0)))).hint(fix)),
    }
}

fn compare(info: &ServerInfo, now_ms: i64) -> Vec<Check> {
    let skew = info.now_ms.saturating_sub(now_ms);
    let clock = if skew.abs() <= SKEW_MS {
        good("clock", format!("{:.1} s from the coordinator's", skew as f64 / 1000.0))
    } else {
        let off = if skew > 0 { "behind" } else { "ahead of" };
        let found = format!("this clock is {} {off} the coordinator's", span(skew.saturating_abs()));
        bad("clock", CliError::failed(found).hint("set both clocks by NTP"))
    };
    let ours = env!("CARGO_PKG_VERSION");
    let version = if info.version == ours {
        good("version", format!("{ours} on both sides"))
    } else {
        let found = format!("{ours} here, {} at the coordinator", info.version);
        bad("version", CliError::failed(found).hint("install the same version on both sides"))
    };
    let fix = "renew the coordinator's server certificate";
    vec![clock, version, lasting("server", info.certificate_expires_ms, now_ms, fix)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_version_and_certificate_are_compared() {
        let now = 1_700_000_000_000;
        let fine = ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms: now + 500,
            certificate_expires_ms: now + 2 * SOON_MS,
            ..ServerInfo::default()
        };
        assert!(compare(&fine, now).iter().all(|check| check.ok));
        let wrong = ServerInfo {
            version: "0.0.1".to_owned(),
            now_ms: now - 60_000,
            certificate_expires_ms: now + 1000,
            ..ServerInfo::default()
        };
        let checks = compare(&wrong, now);
        assert!(checks.iter().all(|check| !check.ok && check.fix.is_some()), "{checks:?}");
        assert!(checks[0].found.contains("60 s ahead of"), "{checks:?}");
    }
}
