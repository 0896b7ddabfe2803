//! The port over tonic. The channel connects when it is first used and again after a break.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rondo_proto::v1;
use rondo_wire::stubs::federation_client::FederationClient;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::transport::Channel;

use super::{Api, ApiError, Chunks, UploadMessages};

/// Slowest upload that is waited for, in bytes per second.
const SLOWEST_UPLOAD: u64 = 16 << 10;

/// Calls a coordinator.
#[derive(Debug, Clone)]
pub struct GrpcApi {
    client: Arc<RwLock<FederationClient<Channel>>>,
    timeout: Duration,
}

impl GrpcApi {
    /// Calls over a channel (see `rondo_wire::identity::channel`), each given up after `timeout`.
    pub fn new(channel: Channel, timeout: Duration) -> Self {
        Self { client: Arc::new(RwLock::new(FederationClient::new(channel))), timeout }
    }

    /// Takes another channel for the calls to come, as after the renewal of a certificate.
    pub fn replace(&self, channel: Channel) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = FederationClient::new(channel);
    }

    fn client(&self) -> FederationClient<Channel> {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn call<T>(
        &self,
        name: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, ApiError> {
        match timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(ApiError::of(name, &status)),
            Err(_) => Err(ApiError::timed_out(name, limit)),
        }
    }
}

impl Api for GrpcApi {
    async fn poll(&self, request: v1::PollRequest) -> Result<v1::PollReply, ApiError> {
        self.call("poll", self.timeout, self.client().poll(request)).await
    }

    async fn answer(&self, request: v1::AnswerRequest) -> Result<(), ApiError> {
        self.call("answer", self.timeout, self.client().answer(request)).await.map(|_| ())
    }

    async fn download(&self, request: v1::DownloadRequest) -> Result<Chunks, ApiError> {
        let chunks = self.call("download", self.timeout, self.client().download(request)).await?;
        let limit = self.timeout;
        // The limit holds for each chunk, not for the
        // whole: a large blob on a slow line is no failure.
        Ok(Box::pin(chunks.timeout(limit).map(move |chunk| match chunk {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(status)) => Err(ApiError::of("download", &status)),
            Err(_) => Err(ApiError::timed_out("download", limit)),
        })))
    }

    async fn upload_status(&self, key: v1::UploadKey) -> Result<v1::UploadStatusReply, ApiError> {
        self.call("upload status", self.timeout, self.client().upload_status(key)).await
    }

    async fn upload(&self, bytes: u64, messages: UploadMessages) -> Result<v1::UploadReply, ApiError> {
        let limit = self.timeout + Duration::from_secs(bytes / SLOWEST_UPLOAD);
        self.call("upload", limit, self.client().upload(messages)).await
    }

    async fn heartbeat(&self, request: v1::HeartbeatRequest) -> Result<v1::HeartbeatReply, ApiError> {
        self.call("heartbeat", self.timeout, self.client().heartbeat(request)).await
    }

    async fn report_evaluation(&self, report: v1::EvaluationReport) -> Result<(), ApiError> {
        self.call("report evaluation", self.timeout, self.client().report_evaluation(report)).await.map(|_| ())
    }

    async fn report_failure(&self, report: v1::FailureReport) -> Result<(), ApiError> {
        self.call("report failure", self.timeout, self.client().report_failure(report)).await.map(|_| ())
    }
}
