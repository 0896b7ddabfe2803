//! `rondo-coordinator init`: the CA, the server certificate, the first operator and, if asked, join
//! tokens.

use std::net::IpAddr;
use std::path::PathBuf;

use rondo_proto::ClientId;
use serde::Serialize;

use crate::clock::Clock;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError, InitRecord, make_private_dir, write_private};
use crate::operator::issue_operator;
use crate::setup::SetupError;
use crate::store::durable::DurableStore;
use crate::store::{Batch, Store};
use crate::tls::Role;
use crate::tls::ca::Authority;
use crate::tls::server::ServerCertificate;
use crate::tokens::{TokenPurpose, TokenRecord};

/// Name of the first operator.
const OPERATOR: &str = "operator";
/// Names that a server certificate carries besides those asked for.
const LOCAL_HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// What to initialise.
#[derive(Debug, Clone, Default)]
pub struct InitRequest {
    /// Names or addresses under which clients and operators reach the coordinator; the first one
    /// makes the URL.
    pub hosts: Vec<String>,
    /// The port in the URL.
    pub port: u16,
    /// Clients for which a join token is made.
    pub tokens: Vec<String>,
    /// Folder in which each token is also written to a file named after its client, beside
    /// `ca-fingerprint` and `url`.
    pub token_dir: Option<PathBuf>,
    /// Life of the tokens and of the operator's certificate.
    pub config: Config,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Initialised {
    /// SHA-256 of the CA certificate, hex.
    pub ca_fingerprint: String,
    /// Where the coordinator is reached.
    pub url: String,
    /// Identity folder of the first operator.
    pub operator_dir: PathBuf,
    /// Join tokens, shown here only.
    pub tokens: Vec<JoinToken>,
}

/// A join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JoinToken {
    /// The client it is for.
    pub name: String,
    /// Its text.
    pub token: String,
}

fn check_host(host: &str) -> Result<(), SetupError> {
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    if is_name || host.parse::<IpAddr>().is_ok() { Ok(()) } else { Err(SetupError::Host { host: host.to_owned() }) }
}

fn url(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V6(address)) => format!("https://[{address}]:{port}"),
        _ => format!("https://{host}:{port}"),
    }
}

/// Initialises a data directory. What an interrupted `init` left is made again; a directory whose
/// `init` came to its end is never touched.
///
/// # Errors
/// The directory is initialised or in use already, a host or client name is not valid, or a file,
/// certificate, token or record cannot be made.
pub fn init(data: &DataDir, request: &InitRequest, clock: &dyn Clock) -> Result<Initialised, SetupError> {
    let already = || SetupError::Already { path: data.root().to_owned() };
    if data.is_initialised() {
        return Err(already());
    }
    request.hosts.iter().try_for_each(|host| check_host(host))?;
    let names = request.tokens.iter().map(|name| ClientId::new(name.as_str())).collect::<Result<Vec<_>, _>>()?;
    make_private_dir(data.root())?;
    let _lock = data.lock()?;
    // Again under the lock: another `init` may have come to its end meanwhile.
    if data.is_initialised() {
        return Err(already());
    }
    for folder in [data.ca(), data.server(), data.operator(), data.store()] {
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DataDirError::file("clear", &folder)(error).into());
            }
            _ => {}
        }
    }

    data.make_private()?;
    let now = clock.now();
    let mut hosts = request.hosts.clone();
    hosts.extend(LOCAL_HOSTS.map(str::to_owned).into_iter().filter(|local| !request.hosts.contains(local)));
    let url = url(&hosts[0], request.port);
    let authority = Authority::create(&data.ca(), now)?;
    ServerCertificate::create(&data.server(), &authority, &hosts, now)?;

    let mut batch = Batch::new();
    let days = request.config.client_certificate_days;
    let (member, identity) = issue_operator(&authority, OPERATOR, &url, now, days)?;
    member.put(&mut batch)?;
    identity.save(&data.operator())?;

    let life_ms = i64::try_from(request.config.token_ttl_s.saturating_mul(1000)).unwrap_or(i64::MAX);
    let mut tokens = Vec::new();
    for name in names {
        let (record, token) = TokenRecord::mint(TokenPurpose {
            name: name.to_string(),
            role: Role::Client,
            expires_at_ms: now.saturating_add(life_ms),
            needs_approval: false,
            renews: false,
        })?;
        record.put(&mut batch)?;
        tokens.push(JoinToken { name: name.to_string(), token });
    }
    let store = DurableStore::open(&data.store())?;
    store.commit(&batch)?;
    store.close()?;
    let ca_fingerprint = authority.fingerprint().to_owned();
    if let Some(folder) = &request.token_dir {
        make_private_dir(folder)?;
        write_private(&folder.join("ca-fingerprint"), ca_fingerprint.as_bytes())?;
        write_private(&folder.join("url"), url.as_bytes())?;
        for made in &tokens {
            write_private(&folder.join(format!("{}.token", made.name)), made.token.as_bytes())?;
        }
    }
    data.write_init_record(&InitRecord { v: 1, url: url.clone(), hosts })?;
    Ok(Initialised { ca_fingerprint, url, operator_dir: data.operator(), tokens })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::members::Member;

    fn request() -> InitRequest {
        InitRequest {
            hosts: vec!["coordinator.example".into()],
            port: 7461,
            tokens: vec!["movies".into()],
            ..Default::default()
        }
    }

    #[test]
    fn a_second_init_is_refused_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let made = init(&data, &request(), &SystemClock).unwrap();
        assert_eq!(made.url, "https://coordinator.example:7461");
        let settled = data.init_record().unwrap();
        assert_eq!(settled.hosts, ["coordinator.example", "localhost", "127.0.0.1"]);
        let ca = std::fs::read(data.ca().join("ca.pem")).unwrap();
        let error = init(&data, &request(), &SystemClock).unwrap_err();
        assert!(matches!(error, SetupError::Already { .. }) && error.to_string().contains("serve"), "{error}");
        assert_eq!(std::fs::read(data.ca().join("ca.pem")).unwrap(), ca);
    }

    #[test]
    fn an_interrupted_init_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let first = init(&data, &request(), &SystemClock).unwrap();
        std::fs::remove_file(dir.path().join("coordinator.toml")).unwrap();
        let second = init(&data, &request(), &SystemClock).unwrap();
        assert_ne!(first.ca_fingerprint, second.ca_fingerprint);
        let store = DurableStore::open(&data.store()).unwrap();
        assert_eq!(TokenRecord::all(&store).unwrap().len(), 1);
        assert_eq!(Member::all(&store, Role::Operator).unwrap().len(), 1);
        TokenRecord::find(&store, &second.tokens[0].token, b"", SystemClock.now()).unwrap();
    }

    #[test]
    fn keys_are_private_and_tokens_can_be_left_in_files() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path().join("data"));
        let folder = dir.path().join("tokens");
        let request = InitRequest { token_dir: Some(folder.clone()), ..request() };
        let made = init(&data, &request, &SystemClock).unwrap();
        let keys = [data.ca().join("key.pem"), data.server().join("server.pem"), data.operator().join("key.pem")];
        for path in keys.into_iter().chain([folder.join("movies.token")]) {
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
        assert_eq!(std::fs::read_to_string(folder.join("movies.token")).unwrap(), made.tokens[0].token);
        assert_eq!(std::fs::read_to_string(folder.join("ca-fingerprint")).unwrap(), made.ca_fingerprint);
    }

    #[test]
    fn bad_hosts_and_names_are_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path().join("data"));
        let host = InitRequest { hosts: vec!["https://x".into()], ..request() };
        assert!(matches!(init(&data, &host, &SystemClock), Err(SetupError::Host { .. })));
        let name = InitRequest { tokens: vec!["Movies!".into()], ..request() };
        assert!(matches!(init(&data, &name, &SystemClock), Err(SetupError::Name(_))));
        assert!(!data.root().exists());
        assert_eq!(url("::1", 7461), "https://[::1]:7461");
    }
}
