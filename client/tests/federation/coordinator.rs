//! A coordinator in this process, in a runtime of its own, so
//! that it can be stopped as abruptly as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rondo_coordinator::clock::{Clock, Millis, SystemClock};
use rondo_coordinator::config::Config;
use rondo_coordinator::data_dir::DataDir;
use rondo_coordinator::init::{InitRequest, init};
use rondo_coordinator::serve::serve;
use rondo_methods::Registry;
use rondo_proto::{Digest, v1};
use rondo_wire::identity::{self, Identity};
use rondo_wire::stubs::administration_client::AdministrationClient;
use rondo_wire::transfer;
use tokio::sync::oneshot;
use tonic::transport::Channel;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a coordinator is to end.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// As SIGTERM does.
    Graceful,
    /// Every task is dropped where it stands.
    Abrupt,
}

/// The machine's clock, so many milliseconds off.
#[derive(Default)]
pub struct Shifted(pub AtomicI64);

impl Clock for Shifted {
    fn now(&self) -> Millis {
        SystemClock.now() + self.0.load(Ordering::SeqCst)
    }
}

/// A coordinator that serves.
pub struct Coordinator {
    dir: PathBuf,
    address: SocketAddr,
    config: Config,
    clock: Arc<Shifted>,
    running: Option<(oneshot::Sender<End>, JoinHandle<()>)>,
}

impl Coordinator {
    /// A new one on a free loopback port.
    pub fn new(dir: &Path, config: Config, clock: Arc<Shifted>) -> Self {
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), drain_s: 3, ..config };
        let request = InitRequest { hosts: vec!["127.0.0.1".into()], config: config.clone(), ..InitRequest::default() };
        init(&DataDir::new(dir), &request, &*clock).unwrap();
        let mut new = Self { dir: dir.to_owned(), address: config.listen, config, clock, running: None };
        new.start();
        new
    }

    /// Serves, at the same address as before.
    pub fn start(&mut self) {
        let config = Config { listen: self.address, ..self.config.clone() };
        let (end, ended) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let data = DataDir::new(&self.dir);
        let clock = Arc::clone(&self.clock);
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
        self.address = is_ready.recv_timeout(Duration::from_secs(20)).expect("the coordinator did not start");
        self.running = Some((end, thread));
    }

    /// Ends; what is on the disk stays.
    pub fn stop(&mut self, how: End) {
        let (end, thread) = self.running.take().unwrap();
        end.send(how).unwrap();
        thread.join().unwrap();
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn api(&self) -> AdministrationClient<Channel> {
        let operator = identity::load(&DataDir::new(&self.dir).operator()).unwrap();
        AdministrationClient::new(identity::channel(&Identity { url: self.url(), ..operator }).unwrap())
    }

    /// A join token that fixes the client's name.
    pub async fn token(&self, name: &str) -> v1::CreateTokenReply {
        let request = v1::CreateTokenRequest { name: name.into(), ..Default::default() };
        self.api().create_token(request).await.unwrap().into_inner()
    }

    pub async fn create_run(&self, base: v1::BaseModel, run_file: String) -> String {
        let mut api = self.api();
        api.add_base(base).await.unwrap();
        api.create_run(v1::CreateRunRequest { run_file, ..Default::default() }).await.unwrap().into_inner().run
    }

    /// Uploads an adapter and creates a run that starts from it.
    pub async fn create_run_from(&self, base: v1::BaseModel, initial: &Path, run_file: String) -> String {
        let mut api = self.api();
        let digest = Digest::of_file(initial).unwrap().to_string();
        let total_bytes = std::fs::metadata(initial).unwrap().len();
        let header = v1::InitialHeader { base: base.name, digest: digest.clone(), total_bytes };
        let messages = transfer::start_adapter_messages(header, initial).unwrap().map(Result::unwrap);
        let stored = api.upload_initial(transfer::stream(messages)).await.unwrap().into_inner();
        assert_eq!(stored.digest, digest);
        let request = v1::CreateRunRequest { run_file, initial_digest: digest };
        api.create_run(request).await.unwrap().into_inner().run
    }

    /// Where a run stands, and the files of which its
    /// adapter is made: initial, frozen and published.
    pub async fn adapter(&self, run: &str, dir: &Path) -> (v1::GetAdapterReply, [Vec<PathBuf>; 3]) {
        let mut api = self.api();
        let request = v1::GetAdapterRequest { run: run.into(), round: None };
        let reply = api.get_adapter(request).await.unwrap().into_inner();
        let state = reply.state.clone().unwrap();
        let published = state.published.into_iter().map(|published| published.digest).collect();
        let mut files: [Vec<PathBuf>; 3] = Default::default();
        for (place, digests) in [vec![state.initial_digest], vec![state.frozen_digest], published].iter().enumerate() {
            for digest in digests.iter().filter(|digest| !digest.is_empty()) {
                let request = v1::DownloadRequest { run: run.into(), digest: digest.clone(), offset: 0 };
                let mut chunks = api.fetch_blob(request).await.unwrap().into_inner();
                let digest: Digest = digest.parse().unwrap();
                let mut receiver = transfer::Receiver::open(&dir.join(digest.hex()), digest).unwrap();
                while let Some(chunk) = chunks.message().await.unwrap() {
                    receiver.absorb(&chunk).unwrap();
                }
                files[place].push(receiver.finish().unwrap());
            }
        }
        (reply, files)
    }

    pub async fn client(&self, client: &str) -> v1::ClientInfo {
        self.api().get_client(v1::GetClientRequest { client: client.into() }).await.unwrap().into_inner()
    }

    /// Waits for the client's first poll.
    pub async fn until_seen(&self, client: &str) {
        let end = Instant::now() + PATIENCE;
        while self.client(client).await.bases.is_empty() {
            assert!(Instant::now() < end, "{client} does not poll");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn run(&self, run: &str) -> v1::RunSummary {
        let request = v1::GetRunRequest { run: run.into() };
        self.api().get_run(request).await.unwrap().into_inner().summary.unwrap()
    }

    pub async fn rounds(&self, run: &str) -> Vec<v1::RoundRecord> {
        self.api().list_rounds(v1::GetRunRequest { run: run.into() }).await.unwrap().into_inner().rounds
    }

    /// Waits until something is so of the run.
    pub async fn until(&self, run: &str, what: &str, so: impl Fn(&v1::RunSummary) -> bool) -> v1::RunSummary {
        let end = Instant::now() + PATIENCE;
        loop {
            let summary = self.run(run).await;
            if so(&summary) {
                return summary;
            }
            assert!(summary.outcome.is_empty() && Instant::now() < end, "never happened: {what}; {summary:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.running.take() {
            let _ = end.send(End::Abrupt);
            let _ = thread.join();
        }
    }
}
