//! Who gets in and who does not, over real TLS.

use std::path::Path;

use rondo_coordinator::clock::{Clock, SystemClock};
use rondo_coordinator::data_dir::DataDir;
use rondo_coordinator::tls::Role;
use rondo_coordinator::tls::ca::Authority;
use rondo_proto::error::ErrorCode;
use rondo_proto::v1;
use rondo_wire::identity::{Identity, IdentityError, enrol, key_and_request, renew, renew_by_token};
use rondo_wire::status::{code_of, explain};
use rondo_wire::stubs::administration_client::AdministrationClient;
use rondo_wire::stubs::federation_client::FederationClient;
use tonic::Status;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::coordinator::{Coordinator, channel, initialise};
use crate::fake_client::FakeClient;

fn code(error: &IdentityError) -> ErrorCode {
    match error {
        IdentityError::Refused { status } => code_of(status),
        other => panic!("{other}"),
    }
}

async fn poll(who: &Identity, coordinator: &Coordinator) -> Result<(), Status> {
    let mut api = FederationClient::new(channel(who, coordinator.address));
    api.poll(v1::PollRequest::default()).await.map(|_| ())
}

async fn info(who: &Identity, coordinator: &Coordinator) -> Result<v1::ServerInfo, Status> {
    let mut api = AdministrationClient::new(channel(who, coordinator.address));
    api.get_info(v1::GetInfoRequest {}).await.map(tonic::Response::into_inner)
}

fn started(dir: &Path) -> Coordinator {
    initialise(dir);
    Coordinator::start(dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_serves_once() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = started(&dir.path().join("data"));
    let made = coordinator.operator().token("movies").await;
    let url = coordinator.url();
    let first = enrol(&url, &made.token, &made.ca_fingerprint, "", &dir.path().join("a")).await.unwrap();
    assert_eq!((first.identity.name.as_str(), first.identity.role.as_str()), ("movies", "client"));
    poll(&first.identity, &coordinator).await.unwrap();

    let again = enrol(&url, &made.token, &made.ca_fingerprint, "", &dir.path().join("b")).await.unwrap_err();
    assert_eq!(code(&again), ErrorCode::Unauthenticated);
    assert!(again.to_string().contains("already used"), "{again}");
    assert!(again.hint().unwrap().contains("rondo token create"), "{:?}", again.hint());
    let unknown = enrol(&url, "rondo-join-00", &made.ca_fingerprint, "x", &dir.path().join("c")).await.unwrap_err();
    assert_eq!(code(&unknown), ErrorCode::Unauthenticated);

    let mut api = coordinator.operator().api;
    let tokens = api.list_tokens(v1::ListTokensRequest {}).await.unwrap().into_inner().tokens;
    assert_eq!((tokens[0].used, tokens[0].used_by.as_str()), (true, "movies"));
    let clients = api.list_clients(v1::ListClientsRequest {}).await.unwrap().into_inner().clients;
    assert_eq!((clients.len(), clients[0].state.as_str()), (1, "active"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_with_one_token_give_one_client() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = started(&dir.path().join("data"));
    let request = v1::CreateTokenRequest::default();
    let made = coordinator.operator().api.create_token(request).await.unwrap().into_inner();
    let attempts: Vec<_> = (0..8)
        .map(|n| {
            let (url, made, dir) = (coordinator.url(), made.clone(), dir.path().join(format!("c{n}")));
            tokio::spawn(async move { enrol(&url, &made.token, &made.ca_fingerprint, &format!("c{n}"), &dir).await })
        })
        .collect();
    let mut joined = 0;
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(_) => joined += 1,
            Err(error) => assert_eq!(code(&error), ErrorCode::Unauthenticated),
        }
    }
    assert_eq!(joined, 1);
    let info = coordinator.operator().api.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.clients, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_expires_is_revoked_and_fixes_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = started(&dir.path().join("data"));
    let mut api = coordinator.operator().api;
    let url = coordinator.url();
    let short = v1::CreateTokenRequest { name: "movies".into(), ttl_s: 1, ..Default::default() };
    let short = api.create_token(short).await.unwrap().into_inner();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let late = enrol(&url, &short.token, &short.ca_fingerprint, "", &dir.path().join("a")).await.unwrap_err();
    assert_eq!(code(&late), ErrorCode::Unauthenticated);
    assert!(late.to_string().contains("expired"), "{late}");

    let made = coordinator.operator().token("movies").await;
    let other = enrol(&url, &made.token, &made.ca_fingerprint, "news", &dir.path().join("b")).await.unwrap_err();
    assert_eq!(code(&other), ErrorCode::PermissionDenied);
    let id = made.info.unwrap().id;
    api.revoke_token(v1::RevokeTokenRequest { id: id.clone() }).await.unwrap();
    let revoked = enrol(&url, &made.token, &made.ca_fingerprint, "", &dir.path().join("c")).await.unwrap_err();
    assert_eq!(code(&revoked), ErrorCode::Unauthenticated);
    let missing = api.revoke_token(v1::RevokeTokenRequest { id }).await.unwrap_err();
    assert_eq!(code_of(&missing), ErrorCode::NotFound);

    // A token without a name needs one from who joins, and a taken name is refused without spending
    // the token.
    let open = api.create_token(v1::CreateTokenRequest::default()).await.unwrap().into_inner();
    let nameless = enrol(&url, &open.token, &open.ca_fingerprint, "", &dir.path().join("d")).await.unwrap_err();
    assert_eq!(code(&nameless), ErrorCode::InvalidArgument);
    FakeClient::join(&coordinator, dir.path(), "tweets").await;
    let taken = enrol(&url, &open.token, &open.ca_fingerprint, "tweets", &dir.path().join("e")).await.unwrap_err();
    assert_eq!(code(&taken), ErrorCode::AlreadyExists);
    enrol(&url, &open.token, &open.ca_fingerprint, "products", &dir.path().join("f")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_fingerprint_keeps_the_token_at_home() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = started(&dir.path().join("data"));
    let made = coordinator.operator().token("movies").await;
    let wrong = "00".repeat(32);
    let error = enrol(&coordinator.url(), &made.token, &wrong, "", &dir.path().join("a")).await.unwrap_err();
    assert!(matches!(error, IdentityError::Pin { .. }), "{error}");
    // The token was not spent.
    enrol(&coordinator.url(), &made.token, &made.ca_fingerprint, "", &dir.path().join("b")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_kept_apart_and_no_certificate_is_not_enough() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let coordinator = started(&data);
    let client = FakeClient::join(&coordinator, dir.path(), "movies").await;
    let refused = info(&client.identity, &coordinator).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::PermissionDenied);
    assert!(refused.message().contains("client `movies`"), "{refused}");
    let operator = rondo_wire::identity::load(&DataDir::new(&data).operator()).unwrap();
    let refused = poll(&operator, &coordinator).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::PermissionDenied);
    assert!(info(&operator, &coordinator).await.unwrap().certificate_expires_ms > 0);

    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&operator.ca_pem)).domain_name("127.0.0.1");
    let anonymous = Endpoint::from_shared(coordinator.url()).unwrap().tls_config(tls).unwrap().connect_lazy();
    let refused = AdministrationClient::new(anonymous.clone()).get_info(v1::GetInfoRequest {}).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::Unauthenticated);
    assert!(explain(&refused).1.unwrap().contains("join"));
    let refused = FederationClient::new(anonymous).poll(v1::PollRequest::default()).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_this_coordinator_does_not_know_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let coordinator = started(&data);
    let client = FakeClient::join(&coordinator, dir.path(), "movies").await;
    let authority = Authority::load(&DataDir::new(&data).ca()).unwrap();
    let forged = |role, name: &str, now| {
        let (key_pem, csr_pem) = key_and_request(name).unwrap();
        let issued = authority.issue_peer(&csr_pem, role, name, now, 1).unwrap();
        Identity { name: name.into(), cert_pem: issued.pem, key_pem, ..client.identity.clone() }
    };
    let now = SystemClock.now();
    // Signed by the CA, but never recorded: another key of a known client, an unknown client, a
    // self-made operator.
    for (role, name) in [(Role::Client, "movies"), (Role::Client, "stranger"), (Role::Operator, "movies")] {
        let refused = poll(&forged(role, name, now), &coordinator).await.unwrap_err();
        assert_eq!(code_of(&refused), ErrorCode::Unauthenticated, "{role} {name}: {refused}");
    }
    // Expired, and signed by another CA: TLS itself refuses.
    poll(&forged(Role::Client, "movies", now - 3 * 86_400_000), &coordinator).await.unwrap_err();
    let other = Authority::create(&dir.path().join("ca"), now).unwrap();
    let (key_pem, csr_pem) = key_and_request("movies").unwrap();
    let cert_pem = other.issue_peer(&csr_pem, Role::Client, "movies", now, 1).unwrap().pem;
    poll(&Identity { cert_pem, key_pem, ..client.identity.clone() }, &coordinator).await.unwrap_err();
    poll(&client.identity, &coordinator).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_client_is_out_at_once_and_may_enrol_anew() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = started(&dir.path().join("data"));
    let mut client = FakeClient::join(&coordinator, dir.path(), "movies").await;
    client.poll().await.unwrap();
    let request = v1::GetClientRequest { client: "movies".into() };
    let revoked = coordinator.operator().api.revoke_client(request).await.unwrap().into_inner();
    assert_eq!(revoked.state, "revoked");
    // On the connection that is open already.
    let refused = client.poll().await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::Unauthenticated);
    assert!(refused.message().contains("revoked"), "{refused}");
    let missing = v1::GetClientRequest { client: "nobody".into() };
    let missing = coordinator.operator().api.revoke_client(missing).await.unwrap_err();
    assert_eq!(code_of(&missing), ErrorCode::NotFound);

    std::fs::rename(dir.path().join("movies"), dir.path().join("old")).unwrap();
    let mut again = FakeClient::join(&coordinator, dir.path(), "movies").await;
    again.poll().await.unwrap();
    assert_eq!(code_of(&client.poll().await.unwrap_err()), ErrorCode::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_for_approval_and_renews() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = started(&dir.path().join("data"));
    let mut api = coordinator.operator().api;
    let request = v1::CreateTokenRequest { name: "movies".into(), needs_approval: true, ..Default::default() };
    let made = api.create_token(request).await.unwrap().into_inner();
    let folder = dir.path().join("movies");
    let enrolled = enrol(&coordinator.url(), &made.token, &made.ca_fingerprint, "", &folder).await.unwrap();
    assert!(!enrolled.approved);
    let renewed = renew(&enrolled.identity, &folder).await.unwrap();
    assert!(!renewed.approved);
    let approved = api.approve_client(v1::GetClientRequest { client: "movies".into() }).await.unwrap().into_inner();
    assert_eq!(approved.state, "active");
    let again = renew(&renewed.identity, &folder).await.unwrap();
    assert!(again.approved);
    assert_ne!(again.identity.cert_pem, renewed.identity.cert_pem);
    // The newest counts and the one before it; older ones do not.
    poll(&again.identity, &coordinator).await.unwrap();
    poll(&renewed.identity, &coordinator).await.unwrap();
    assert_eq!(code_of(&poll(&enrolled.identity, &coordinator).await.unwrap_err()), ErrorCode::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_are_added_and_the_last_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = started(&dir.path().join("data"));
    let mut api = coordinator.operator().api;
    let last = api.revoke_operator(v1::RevokeOperatorRequest { name: "operator".into() }).await.unwrap_err();
    assert_eq!(code_of(&last), ErrorCode::FailedPrecondition);
    let request = v1::CreateTokenRequest { name: "second".into(), role: "operator".into(), ..Default::default() };
    let made = api.create_token(request).await.unwrap().into_inner();
    let second =
        enrol(&coordinator.url(), &made.token, &made.ca_fingerprint, "", &dir.path().join("op")).await.unwrap();
    info(&second.identity, &coordinator).await.unwrap();
    api.revoke_operator(v1::RevokeOperatorRequest { name: "operator".into() }).await.unwrap();
    assert_eq!(code_of(&api.get_info(v1::GetInfoRequest {}).await.unwrap_err()), ErrorCode::Unauthenticated);
    let bad = v1::CreateTokenRequest { role: "king".into(), ..Default::default() };
    let mut api = AdministrationClient::new(channel(&second.identity, coordinator.address));
    assert_eq!(code_of(&api.create_token(bad).await.unwrap_err()), ErrorCode::InvalidArgument);
}

/// The operator's token of `rondo token create --renew`.
async fn renewal_token(coordinator: &Coordinator, name: &str) -> v1::CreateTokenReply {
    let request = v1::CreateTokenRequest { name: name.into(), renews: true, ..Default::default() };
    coordinator.operator().api.create_token(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_identity_keeps_all_else_in_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = started(&dir.path().join("data"));
    let (url, folder) = (coordinator.url(), dir.path().join("a"));
    let made = coordinator.operator().token("movies").await;
    let old = enrol(&url, &made.token, &made.ca_fingerprint, "", &folder).await.unwrap().identity;
    for (file, text) in [("ledger.jsonl", "entries"), ("ledger.head", "3 blake3:00"), ("client.toml", "[limits]")] {
        std::fs::write(folder.join(file), text).unwrap();
    }
    let kept = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();

    let made = renewal_token(&coordinator, "movies").await;
    let info = made.info.clone().unwrap();
    assert!(info.renews && info.name == "movies");
    // Another folder cannot take the name by it, nor this one take another name.
    let other = dir.path().join("b");
    let news = coordinator.operator().token("news").await;
    enrol(&url, &news.token, &news.ca_fingerprint, "", &other).await.unwrap();
    let refused = renew_by_token(&url, &made.token, &made.ca_fingerprint, &other).await.unwrap_err();
    assert_eq!(code(&refused), ErrorCode::PermissionDenied);
    assert!(refused.to_string().contains("`movies`"), "{refused}");

    let new = renew_by_token(&url, &made.token, &made.ca_fingerprint, &folder).await.unwrap();
    assert!(new.approved && new.identity.name == "movies" && new.identity.cert_pem != old.cert_pem);
    poll(&new.identity, &coordinator).await.unwrap();
    assert!(poll(&old, &coordinator).await.is_err(), "the older certificate counts no more");
    assert_eq!(kept("ledger.jsonl") + &kept("ledger.head") + &kept("client.toml"), "entries3 blake3:00[limits]");
    assert!(!folder.join("key.new.pem").exists());
    assert_eq!(kept("key.pem"), new.identity.key_pem);

    // The token is used up for any other key.
    let again = renew_by_token(&url, &made.token, &made.ca_fingerprint, &folder).await.unwrap_err();
    assert!(again.to_string().contains("already used"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_whose_answer_was_lost_is_answered_again() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = started(&dir.path().join("data"));
    let (url, folder) = (coordinator.url(), dir.path().join("a"));
    let made = coordinator.operator().token("movies").await;
    enrol(&url, &made.token, &made.ca_fingerprint, "", &folder).await.unwrap();
    let made = renewal_token(&coordinator, "movies").await;
    let first = renew_by_token(&url, &made.token, &made.ca_fingerprint, &folder).await.unwrap().identity;
    // The folder as it was before the answer came: the old identity and the new key.
    std::fs::write(folder.join("key.new.pem"), &first.key_pem).unwrap();
    let second = renew_by_token(&url, &made.token, &made.ca_fingerprint, &folder).await.unwrap().identity;
    assert_eq!(second.key_pem, first.key_pem);
    poll(&second, &coordinator).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_client_comes_back_by_a_renewal_token_alone() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = started(&dir.path().join("data"));
    let (url, folder) = (coordinator.url(), dir.path().join("a"));
    let made = coordinator.operator().token("movies").await;
    let old = enrol(&url, &made.token, &made.ca_fingerprint, "", &folder).await.unwrap().identity;
    let mut api = coordinator.operator().api;
    api.revoke_client(v1::GetClientRequest { client: "movies".into() }).await.unwrap();
    assert!(poll(&old, &coordinator).await.is_err());
    let made = renewal_token(&coordinator, "movies").await;
    let new = renew_by_token(&url, &made.token, &made.ca_fingerprint, &folder).await.unwrap().identity;
    poll(&new, &coordinator).await.unwrap();
    assert!(poll(&old, &coordinator).await.is_err(), "what was revoked stays so");

    // The same call again, after another revocation, lets nobody in.
    std::fs::write(folder.join("key.new.pem"), &new.key_pem).unwrap();
    api.revoke_client(v1::GetClientRequest { client: "movies".into() }).await.unwrap();
    let refused = renew_by_token(&url, &made.token, &made.ca_fingerprint, &folder).await.unwrap_err();
    assert!(refused.to_string().contains("was revoked"), "{refused}");

    let unknown = v1::CreateTokenRequest { name: "nobody".into(), renews: true, ..Default::default() };
    let refused = api.create_token(unknown).await.unwrap_err();
    assert_eq!(code_of(&refused), ErrorCode::NotFound);
}
