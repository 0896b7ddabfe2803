//! The daemon over real gRPC on loopback, without TLS, which the coordinator's own tests cover.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use rondo_client::api::{Api, ApiError, GrpcApi, Retry, UploadMessages};
use rondo_client::disk::LocalDisk;
use rondo_proto::error::ErrorCode;
use rondo_proto::v1;
use rondo_wire::status::status;
use rondo_wire::stubs::federation_server::{Federation, FederationServer};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::coordinator::Coordinator;
use crate::machine::Machine;

/// The played coordinator behind a real server.
struct Served(Coordinator);

fn refuse(error: ApiError) -> Status {
    status(error.code, error.message, error.hint.as_deref())
}

#[tonic::async_trait]
impl Federation for Served {
    type DownloadStream = Pin<Box<dyn Stream<Item = Result<v1::Chunk, Status>> + Send>>;

    async fn poll(&self, request: Request<v1::PollRequest>) -> Result<Response<v1::PollReply>, Status> {
        self.0.poll(request.into_inner()).await.map(Response::new).map_err(refuse)
    }
    async fn answer(&self, request: Request<v1::AnswerRequest>) -> Result<Response<v1::AnswerReply>, Status> {
        self.0.answer(request.into_inner()).await.map_err(refuse)?;
        Ok(Response::new(v1::AnswerReply {}))
    }
    async fn download(&self, request: Request<v1::DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        let chunks = self.0.download(request.into_inner()).await.map_err(refuse)?;
        Ok(Response::new(Box::pin(chunks.map(|chunk| chunk.map_err(refuse)))))
    }
    async fn upload_status(&self, key: Request<v1::UploadKey>) -> Result<Response<v1::UploadStatusReply>, Status> {
        self.0.upload_status(key.into_inner()).await.map(Response::new).map_err(refuse)
    }
    async fn upload(
        &self,
        messages: Request<Streaming<v1::UploadMessage>>,
    ) -> Result<Response<v1::UploadReply>, Status> {
        let messages = UploadMessages::new(messages.into_inner().map_while(Result::ok));
        self.0.upload(0, messages).await.map(Response::new).map_err(refuse)
    }
    async fn heartbeat(&self, request: Request<v1::HeartbeatRequest>) -> Result<Response<v1::HeartbeatReply>, Status> {
        self.0.heartbeat(request.into_inner()).await.map(Response::new).map_err(refuse)
    }
    async fn report_evaluation(&self, report: Request<v1::EvaluationReport>) -> Result<Response<v1::Ack>, Status> {
        self.0.report_evaluation(report.into_inner()).await.map_err(refuse)?;
        Ok(Response::new(v1::Ack {}))
    }
    async fn report_failure(&self, report: Request<v1::FailureReport>) -> Result<Response<v1::Ack>, Status> {
        self.0.report_failure(report.into_inner()).await.map_err(refuse)?;
        Ok(Response::new(v1::Ack {}))
    }
}

/// Serves until the sender is used or dropped.
async fn serve(coordinator: &Coordinator, address: SocketAddr) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let service = FederationServer::new(Served(coordinator.clone()));
    let task = tokio::spawn(async move {
        let until = async {
            let _ = stopped.await;
        };
        let incoming = TcpListenerStream::new(listener);
        Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, until).await.unwrap();
    });
    (address, stop, task)
}

fn api(address: SocketAddr) -> GrpcApi {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    GrpcApi::new(channel, Duration::from_secs(5))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_coordinator_is_waited_out() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    let (address, stop, served) = serve(&machine.coordinator, ([127, 0, 0, 1], 0).into()).await;
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.coordinator.book().trouble.upload_breaks_at = Some(500);
    machine.start_with(api(address), Box::new(LocalDisk));
    machine.coordinator.until("the first update", |book| book.accepted.len() == 1).await;
    stop.send(()).unwrap();
    // The connections are cut, not drained.
    served.abort();
    let _ = served.await;

    machine.train("one", 2, &run_file);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (_, _stop, _served) = serve(&machine.coordinator, address).await;
    machine.coordinator.until("the second update", |book| book.accepted.len() == 2).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    assert_eq!(book.upload_offsets, [0, 500, 0]);
    assert_eq!(machine.trained(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_keep_their_hint_and_absence_passes() {
    let coordinator = Coordinator::default();
    let (address, _stop, _served) = serve(&coordinator, ([127, 0, 0, 1], 0).into()).await;
    let request = v1::DownloadRequest { run: "one".to_owned(), digest: "blake3:00".to_owned(), offset: 0 };
    let refused = api(address).download(request).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::NotFound);
    assert!(refused.is_final() && !refused.is_passing());
    assert_eq!(refused.to_string(), "download: no such blob (hint: blobs are dropped when no round needs them)");

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let absent = api(nobody);
    let retry = Retry {
        first: Duration::from_millis(1),
        most: Duration::from_millis(2),
        within: Some(Duration::from_millis(20)),
    };
    let error = retry.call(|| absent.poll(v1::PollRequest::default())).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    assert!(error.to_string().contains("hint:"), "{error}");
}
