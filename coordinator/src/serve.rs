//! `rondo-coordinator serve`: puts the parts together, listens, and takes them down in order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rondo_methods::Registry;
use rondo_proto::files::{self, FileAccess};
use rondo_wire::identity::{self, IdentityError};
use rondo_wire::stubs::administration_server::AdministrationServer;
use rondo_wire::stubs::enrolment_server::EnrolmentServer;
use rondo_wire::stubs::federation_server::FederationServer;
use rondo_wire::transfer::MESSAGE_BYTES;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use crate::blob_gc;
use crate::clock::Clock;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError, InitRecord};
use crate::driver::{Driver, StartError, Started};
use crate::executor::Executor;
use crate::grpc::Shared;
use crate::grpc::administration::AdministrationService;
use crate::grpc::enrolment::EnrolmentService;
use crate::grpc::federation::FederationService;
use crate::grpc::identity::AuthInterceptor;
use crate::ledger_check::{self, LedgerCheckError};
use crate::listener::{self, Connection};
use crate::maintenance::Maintenance;
use crate::start_adapters::StartAdapters;
use crate::store::blobs::{BlobError, Blobs};
use crate::store::durable::DurableStore;
use crate::store::{Store, StoreError};
use crate::tls::ca::Authority;
use crate::tls::server::{ServerCertResolver, ServerCertificate};
use crate::tls::{self, Role, TlsError};
use crate::upload::Uploads;
use crate::upload::staging::Staging;

/// Requests of one connection at a time.
const PER_CONNECTION: usize = 64;
/// A silent connection is asked whether it lives, and cut when it does not answer.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// An enrolment request holds a token and a certificate request; nobody who has no certificate
/// sends more.
const MAX_ENROLMENT_BYTES: usize = 16 << 10;
/// The largest message of a client is a piece of an update.
const MAX_FEDERATION_BYTES: usize = MESSAGE_BYTES + (64 << 10);
/// A base model's description lists its layers.
const MAX_ADMINISTRATION_BYTES: usize = 16 << 20;

/// Why a coordinator could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Files of the data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Records.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Records that make no state.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The privacy ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerCheckError),
    /// The blob folder.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The staging folder.
    #[error("cannot open {path}: {source}")]
    Staging {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The port.
    #[error("cannot listen on {address}: {source}; is another program using the port? choose one with --listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The operator's identity folder.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The server failed while it ran.
    #[error("the server failed: {0}")]
    Server(#[from] tonic::transport::Error),
    /// A component of the coordinator ended while it served.
    #[error(
        "the coordinator's {component} stopped: {problem}; the process ends so that it is started again, its state is safe"
    )]
    Component {
        /// Which one: "server", "driver" or "executor".
        component: &'static str,
        /// How it ended.
        problem: String,
    },
    /// A task ended abruptly.
    #[error("a task ended abruptly: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Serves from a data directory until `shutdown` comes. `ready` gets the address once calls are
/// answered.
///
/// # Errors
/// Another process uses the directory, the port is not free, or a file, certificate, record or the
/// ledger cannot be used. A component that ends before `shutdown` is an error too.
pub async fn serve(
    data: &DataDir,
    config: Config,
    registry: Registry,
    clock: Arc<dyn Clock>,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    // A process has one provider; a second installation of the same one is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let init = data.init_record()?;
    let _lock = data.lock()?;
    remove_address_file(data)?;
    let now = clock.now();
    let authority = Authority::load(&data.ca())?;
    data.make_private()?;
    let certificate = ServerCertificate::load(&data.server(), &authority, &init.hosts, now)?;
    let certificate = Arc::new(ServerCertResolver::new(&certificate)?);
    let store = DurableStore::open(&data.store())?;
    let store: Arc<dyn Store> = Arc::new(store);
    let blobs = Arc::new(Blobs::open(&data.blobs())?);
    let staging_error = |source| ServeError::Staging { path: data.staging(), source };
    let staging = Arc::new(Staging::open(&data.staging(), config.max_staging_bytes).map_err(staging_error)?);
    let staging_error = |source| ServeError::Staging { path: data.staging(), source };
    let start_adapters = StartAdapters::open(&data.staging(), config.max_staging_bytes).map_err(staging_error)?;
    let listen_error = |source| ServeError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;

    let Started { driver, requests, task: mut driving } =
        Driver::start(Arc::clone(&store), registry, Arc::clone(&clock))?;
    // Before garbage is collected: what older records do not know, newer ones may need.
    let ledger = ledger_check::open(&data.ledger(), &data.store(), &driver).await?;
    // Before the executor makes new ones and anybody calls.
    blob_gc::collect_garbage(&driver, &blobs).await?;
    staging.collect_garbage(&driver).await;
    let executor = Executor::new(driver.clone(), Arc::clone(&blobs), Arc::clone(&staging), ledger, Arc::clone(&clock));
    let mut executing = tokio::spawn(executor.run(requests));

    let (closing, is_closing) = watch::channel(false);
    let connections = listener::accept(
        listener,
        tls::server::server_config(Arc::clone(&certificate), &authority)?,
        config.max_connections,
    );
    let drain = Duration::from_secs(config.drain_s);
    let shared = Arc::new(Shared {
        driver: driver.clone(),
        store: Arc::clone(&store),
        blobs: Arc::clone(&blobs),
        uploads: Uploads::new(driver.clone(), blobs, staging),
        start_adapters,
        authority,
        config,
        clock,
        started_at_ms: now,
        certificate,
        writing: tokio::sync::Mutex::new(()),
        closing: is_closing.clone(),
    });
    let maintenance = Maintenance { shared: Arc::clone(&shared), server: data.server(), hosts: init.hosts.clone() };
    let maintenance = tokio::spawn(maintenance.run());
    let mut serving = tokio::spawn(server(shared, connections, is_closing));
    write_address_file(data, &init, address)?;
    tracing::info!(%address, url = init.url, data_dir = %data.root().display(), "coordinator is ready");
    ready(address);

    let ended = first_to_end(&mut serving, &mut driving, &mut executing, shutdown).await;
    match &ended {
        Ok(()) => tracing::info!(drain_s = drain.as_secs(), "shutting down: no new calls, those under way may finish"),
        // Without one of its components a coordinator is of no use. The supervisor of the process
        // starts it again.
        Err(error) => tracing::error!(%error, "shutting down"),
    }
    closing.send_replace(true);
    if !serving.is_finished() && tokio::time::timeout(drain, &mut serving).await.is_err() {
        tracing::warn!("calls were still under way at the end of the drain and are cut");
        serving.abort();
    }
    maintenance.abort();
    driver.stop().await;
    if !driving.is_finished() {
        driving.await?;
    }
    // Ends with the driver; an aggregation under way is started again by the next life.
    executing.abort();
    remove_address_file(data)?;
    tokio::task::spawn_blocking(move || store.close()).await??;
    tracing::info!("coordinator has ended");
    ended
}

/// The three services on connections that are encrypted already, until `closing` turns true.
fn server(
    shared: Arc<Shared>,
    connections: ReceiverStream<io::Result<Connection>>,
    mut closing: watch::Receiver<bool>,
) -> impl Future<Output = Result<(), tonic::transport::Error>> {
    let gate = |role| AuthInterceptor { shared: Arc::clone(&shared), role };
    let enrolment = EnrolmentServer::new(EnrolmentService(Arc::clone(&shared)));
    let federation = FederationServer::new(FederationService(Arc::clone(&shared)));
    let administration = AdministrationServer::new(AdministrationService(Arc::clone(&shared)));
    Server::builder()
        .concurrency_limit_per_connection(PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(enrolment.max_decoding_message_size(MAX_ENROLMENT_BYTES))
        .add_service(InterceptedService::new(
            federation.max_decoding_message_size(MAX_FEDERATION_BYTES),
            gate(Role::Client),
        ))
        .add_service(InterceptedService::new(
            administration.max_decoding_message_size(MAX_ADMINISTRATION_BYTES),
            gate(Role::Operator),
        ))
        .serve_with_incoming_shutdown(connections, async move {
            // The sender lives until the server has ended.
            let _ = closing.wait_for(|closing| *closing).await;
        })
}

/// Waits for the shutdown. A component that ends before it is an error, whatever it ended with.
async fn first_to_end(
    serving: &mut JoinHandle<Result<(), tonic::transport::Error>>,
    driving: &mut JoinHandle<()>,
    executing: &mut JoinHandle<()>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (component, problem) = tokio::select! {
        () = shutdown => return Ok(()),
        ended = serving => match ended {
            Ok(Err(error)) => return Err(error.into()),
            ended => ("server", ended.err()),
        },
        ended = driving => ("driver", ended.err()),
        ended = executing => ("executor", ended.err()),
    };
    let problem = problem.map_or_else(|| "it ended by itself".to_owned(), |error| error.to_string());
    Err(ServeError::Component { component, problem })
}

/// Writes `DIR/address`. When `init` did not fix a port, the operator's identity gets the real one.
fn write_address_file(data: &DataDir, init: &InitRecord, address: SocketAddr) -> Result<(), ServeError> {
    if let Some(url) = init.url.strip_suffix(":0")
        && let Ok(mut operator) = identity::load(&data.operator())
    {
        operator.url = format!("{url}:{}", address.port());
        operator.save(&data.operator())?;
    }
    let path = data.address();
    let replaced = files::replace(&path, format!("{address}\n").as_bytes(), FileAccess::Everyone);
    Ok(replaced.map_err(DataDirError::file("write", &path))?)
}

fn remove_address_file(data: &DataDir) -> Result<(), ServeError> {
    let path = data.address();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DataDirError::file("remove", &path)(error).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endless<T: Send + 'static>() -> JoinHandle<T> {
        tokio::spawn(std::future::pending())
    }

    async fn after(mut driving: JoinHandle<()>, mut executing: JoinHandle<()>) -> Result<(), ServeError> {
        let mut serving = endless();
        let shutdown = tokio::time::sleep(Duration::from_secs(5));
        first_to_end(&mut serving, &mut driving, &mut executing, shutdown).await
    }

    #[tokio::test]
    async fn a_component_that_ends_or_panics_ends_the_coordinator_with_an_error() {
        let error = after(tokio::spawn(async { panic!("boom") }), endless()).await.unwrap_err().to_string();
        assert!(error.contains("driver") && error.contains("boom"), "{error}");
        let error = after(endless(), tokio::spawn(async {})).await.unwrap_err().to_string();
        assert!(error.contains("executor") && error.contains("by itself"), "{error}");
        let mut serving = endless();
        let mut driving = endless();
        let mut executing = endless();
        first_to_end(&mut serving, &mut driving, &mut executing, std::future::ready(())).await.unwrap();
    }
}
