//! A coordinator in this process, in a runtime of its own, so that it can be stopped as abruptly as
//! a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rondo_coordinator::clock::{Clock, SystemClock};
use rondo_coordinator::config::Config;
use rondo_coordinator::data_dir::DataDir;
use rondo_coordinator::init::{InitRequest, Initialised, init};
use rondo_coordinator::serve::serve;
use rondo_methods::Registry;
use rondo_proto::v1;
use rondo_wire::identity::{self, Identity};
use rondo_wire::stubs::administration_client::AdministrationClient;
use tokio::sync::oneshot;
use tonic::transport::Channel;

/// How a coordinator is to end.
enum End {
    Graceful,
    Abrupt,
}

/// A coordinator that serves.
pub(crate) struct Coordinator {
    pub(crate) dir: PathBuf,
    pub(crate) address: SocketAddr,
    end: Option<oneshot::Sender<End>>,
    thread: Option<JoinHandle<()>>,
}

/// Initialises a directory for a coordinator on a free loopback port.
pub(crate) fn initialise(dir: &Path) -> Initialised {
    let request = InitRequest { hosts: vec!["127.0.0.1".into()], ..Default::default() };
    init(&DataDir::new(dir), &request, &SystemClock).unwrap()
}

impl Coordinator {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, Config::default())
    }

    pub(crate) fn start_with(dir: &Path, config: Config) -> Self {
        Self::start_at(dir, config, Arc::new(SystemClock))
    }

    /// With a clock of its own.
    pub(crate) fn start_at(dir: &Path, config: Config, clock: Arc<dyn Clock>) -> Self {
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), drain_s: 3, ..config };
        let (end, ended) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let data = DataDir::new(dir);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let (shutdown, is_shutdown) = oneshot::channel::<()>();
                let is_shutdown = async {
                    let _ = is_shutdown.await;
                };
                let ready = move |address| ready.send(address).unwrap();
                let serving = serve(&data, config, Registry::builtin(), clock, ready, is_shutdown);
                tokio::pin!(serving);
                tokio::select! {
                    outcome = &mut serving => panic!("the coordinator ended by itself: {outcome:?}"),
                    end = ended => if let Ok(End::Graceful) = end {
                        shutdown.send(()).unwrap();
                        serving.await.unwrap();
                    }
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(10));
        });
        let address = is_ready.recv_timeout(Duration::from_secs(20)).expect("the coordinator did not start");
        Self { dir: dir.to_owned(), address, end: Some(end), thread: Some(thread) }
    }

    fn finish(&mut self, how: End) {
        if let (Some(end), Some(thread)) = (self.end.take(), self.thread.take()) {
            let _ = end.send(how);
            thread.join().unwrap();
        }
    }

    /// As SIGTERM does.
    pub(crate) fn stop(mut self) {
        self.finish(End::Graceful);
    }

    /// Drops every task where it stands.
    pub(crate) fn kill(mut self) {
        self.finish(End::Abrupt);
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn operator(&self) -> Operator {
        operator(&self.dir, self.address)
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.finish(End::Abrupt);
        }
    }
}

/// An operator's connection.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) api: AdministrationClient<Channel>,
}

pub(crate) fn operator(dir: &Path, address: SocketAddr) -> Operator {
    let operator = identity::load(&DataDir::new(dir).operator()).unwrap();
    Operator { api: AdministrationClient::new(channel(&operator, address)) }
}

/// A channel to wherever the coordinator listens now.
pub(crate) fn channel(who: &Identity, address: SocketAddr) -> Channel {
    identity::channel(&Identity { url: format!("https://{address}"), ..who.clone() }).unwrap()
}

impl Operator {
    pub(crate) async fn token(&self, name: &str) -> v1::CreateTokenReply {
        let request = v1::CreateTokenRequest { name: name.into(), ..Default::default() };
        self.api.clone().create_token(request).await.unwrap().into_inner()
    }

    pub(crate) async fn run(&self, run: &str) -> v1::RunSummary {
        let request = v1::GetRunRequest { run: run.into() };
        self.api.clone().get_run(request).await.unwrap().into_inner().summary.unwrap()
    }

    pub(crate) async fn round(&self, run: &str, round: u32) -> v1::RoundRecord {
        self.api.clone().get_round(v1::GetRoundRequest { run: run.into(), round }).await.unwrap().into_inner()
    }

    /// Registers the tests' bases and makes a run of it.
    pub(crate) async fn create_run(&self, run_file: String) -> v1::RunSummary {
        let mut api = self.api.clone();
        api.add_base(crate::tensors::base()).await.unwrap();
        api.add_base(crate::tensors::wide_base()).await.unwrap();
        api.create_run(v1::CreateRunRequest { run_file, ..Default::default() }).await.unwrap().into_inner()
    }
}
