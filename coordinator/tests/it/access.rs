//! Access to the services: who may send how much, and how many connections there may be.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rondo_coordinator::config::Config;
use rondo_coordinator::data_dir::DataDir;
use rondo_proto::error::ErrorCode;
use rondo_proto::v1;
use rondo_wire::identity::{self, Identity, key_and_request};
use rondo_wire::status::code_of;
use rondo_wire::stubs::administration_client::AdministrationClient;
use rondo_wire::stubs::enrolment_client::EnrolmentClient;
use rondo_wire::stubs::federation_client::FederationClient;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::coordinator::{Coordinator, channel, initialise};
use crate::fake_client::FakeClient;

fn started(dir: &Path, config: Config) -> (Coordinator, Identity) {
    initialise(dir);
    let coordinator = Coordinator::start_with(dir, config);
    (coordinator, identity::load(&DataDir::new(dir).operator()).unwrap())
}

/// A channel that shows no certificate.
fn anonymous(coordinator: &Coordinator, ca_pem: &str) -> Channel {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem)).domain_name("127.0.0.1");
    Endpoint::from_shared(coordinator.url()).unwrap().tls_config(tls).unwrap().connect_lazy()
}

/// A message of each service that is larger than the service reads.
async fn too_large(channel: Channel) -> (Status, Status) {
    let text = "x".repeat(20 << 20);
    let poll = v1::PollRequest { version: text.clone(), ..Default::default() };
    let polled = FederationClient::new(channel.clone()).poll(poll).await.unwrap_err();
    let run = v1::CreateRunRequest { run_file: text, ..Default::default() };
    (polled, AdministrationClient::new(channel).create_run(run).await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_call_is_refused_before_the_message_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (coordinator, operator) = started(&dir.path().join("data"), Config::default());
    let (poll, create) = too_large(anonymous(&coordinator, &operator.ca_pem)).await;
    assert_eq!(code_of(&poll), ErrorCode::Unauthenticated, "{poll}");
    assert_eq!(code_of(&create), ErrorCode::Unauthenticated, "{create}");
    let (poll, create) = too_large(channel(&operator, coordinator.address)).await;
    assert_eq!(code_of(&poll), ErrorCode::PermissionDenied, "{poll}");
    assert_eq!(create.code(), tonic::Code::OutOfRange, "an operator's message is read up to the limit: {create}");
    let client = FakeClient::join(&coordinator, dir.path(), "movies").await;
    let (poll, create) = too_large(channel(&client.identity, coordinator.address)).await;
    assert_eq!(poll.code(), tonic::Code::OutOfRange, "{poll}");
    assert_eq!(code_of(&create), ErrorCode::PermissionDenied, "{create}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_is_a_small_message() {
    let dir = tempfile::tempdir().unwrap();
    let (coordinator, operator) = started(dir.path(), Config::default());
    let mut api = EnrolmentClient::new(anonymous(&coordinator, &operator.ca_pem));
    let request = v1::EnrolRequest { token: "x".repeat(20 << 10), ..Default::default() };
    assert_eq!(api.enrol(request).await.unwrap_err().code(), tonic::Code::OutOfRange);
    let (_, csr_pem) = key_and_request("movies").unwrap();
    let request = v1::EnrolRequest { token: "x".repeat(1 << 10), csr_pem, ..Default::default() };
    assert_eq!(code_of(&api.enrol(request).await.unwrap_err()), ErrorCode::Unauthenticated);
}

/// A call on a connection of its own, kept open.
async fn connected(coordinator: &Coordinator, operator: &Identity) -> AdministrationClient<Channel> {
    let mut api = AdministrationClient::new(channel(operator, coordinator.address));
    api.get_info(v1::GetInfoRequest {}).await.unwrap();
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_connections: 4, ..Config::default() };
    let (coordinator, operator) = started(dir.path(), config);
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(connected(&coordinator, &operator).await);
    }
    let fifth = connected(&coordinator, &operator);
    tokio::pin!(fifth);
    tokio::time::timeout(Duration::from_millis(500), &mut fifth).await.unwrap_err();
    open.pop();
    tokio::time::timeout(Duration::from_secs(10), &mut fifth).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_certificate_take_a_quarter_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_connections: 4, ..Config::default() };
    let (coordinator, operator) = started(dir.path(), config);
    let poll = async |channel: &Channel| {
        let call = FederationClient::new(channel.clone()).poll(v1::PollRequest::default()).await;
        code_of(&call.unwrap_err())
    };
    let first = anonymous(&coordinator, &operator.ca_pem);
    assert_eq!(poll(&first).await, ErrorCode::Unauthenticated);
    let second = anonymous(&coordinator, &operator.ca_pem);
    assert_ne!(poll(&second).await, ErrorCode::Unauthenticated, "the connection is cut");
    connected(&coordinator, &operator).await;
    drop(first);
    for _ in 0..100 {
        if poll(&second).await == ErrorCode::Unauthenticated {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the place of a connection that went was not given to the next");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_others_may_enter_is_closed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::new(dir.path());
    initialise(dir.path());
    let open = || std::fs::Permissions::from_mode(0o755);
    for folder in [data.store(), data.blobs(), data.staging()] {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, open()).unwrap();
    }
    let _coordinator = Coordinator::start(dir.path());
    for folder in [data.store(), data.blobs(), data.staging()] {
        let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
}
