//! The coordinator as the daemon sees it: a port, so that tests can
//! stand in for it, and the gRPC adapter behind it.

mod grpc;
mod retry;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use rondo_proto::error::ErrorCode;
use rondo_proto::v1;
use rondo_wire::status::{code_of, explain};
use tokio_stream::Stream;

pub use grpc::GrpcApi;
pub use retry::{Backoff, Retry};

/// A blob's chunks as they come.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<v1::Chunk, ApiError>> + Send>>;

/// An upload's header and chunks as they go. (A type of its own: with the bare box, the compiler
/// cannot prove that the call may change threads.)
pub struct UploadMessages(Pin<Box<dyn Stream<Item = v1::UploadMessage> + Send>>);

impl UploadMessages {
    /// Wraps a stream.
    pub fn new(stream: impl Stream<Item = v1::UploadMessage> + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl Stream for UploadMessages {
    type Item = v1::UploadMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

/// The calls of `rondo.v1.Federation`. All are safe to repeat, and safe to drop half way.
pub trait Api: Send + Sync + 'static {
    /// Says what the client has and asks what to do.
    fn poll(&self, request: v1::PollRequest) -> impl Future<Output = Result<v1::PollReply, ApiError>> + Send;
    /// Accepts or declines a run.
    fn answer(&self, request: v1::AnswerRequest) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// A blob's chunks from an offset on.
    fn download(&self, request: v1::DownloadRequest) -> impl Future<Output = Result<Chunks, ApiError>> + Send;
    /// How much of an upload the coordinator holds.
    fn upload_status(&self, key: v1::UploadKey)
    -> impl Future<Output = Result<v1::UploadStatusReply, ApiError>> + Send;
    /// Sends an upload of `bytes` bytes: its header, then its chunks.
    fn upload(
        &self,
        bytes: u64,
        messages: UploadMessages,
    ) -> impl Future<Output = Result<v1::UploadReply, ApiError>> + Send;
    /// Reports the progress of the present work; the reply may stop it.
    fn heartbeat(
        &self,
        request: v1::HeartbeatRequest,
    ) -> impl Future<Output = Result<v1::HeartbeatReply, ApiError>> + Send;
    /// Reports an evaluation.
    fn report_evaluation(&self, report: v1::EvaluationReport) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Reports that an assignment cannot be done.
    fn report_failure(&self, report: v1::FailureReport) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// Why a call failed, in the coordinator's words where it gave some.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{call}: {message}{}", .hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default())]
pub struct ApiError {
    /// Which call.
    pub call: &'static str,
    /// The kind of failure.
    pub code: ErrorCode,
    /// What went wrong.
    pub message: String,
    /// How to fix it, when that is known.
    pub hint: Option<String>,
}

impl ApiError {
    /// Reads a gRPC status.
    pub fn of(call: &'static str, status: &tonic::Status) -> Self {
        let (message, hint) = explain(status);
        Self { call, code: code_of(status), message, hint }
    }

    /// A call that took longer than it may.
    pub fn timed_out(call: &'static str, after: std::time::Duration) -> Self {
        let message = format!("no answer from the coordinator within {} s", after.as_secs_f64());
        Self { call, code: ErrorCode::DeadlineExceeded, message, hint: None }
    }

    /// Whether the same call may succeed later with nothing changed here.
    pub fn is_passing(&self) -> bool {
        self.code.retryable()
    }

    /// Whether the coordinator has decided against the
    /// request itself, so that repeating it is of no use.
    pub fn is_final(&self) -> bool {
        matches!(
            self.code,
            ErrorCode::InvalidArgument
                | ErrorCode::NotFound
                | ErrorCode::AlreadyExists
                | ErrorCode::FailedPrecondition
                | ErrorCode::PermissionDenied
                | ErrorCode::Unimplemented
        )
    }
}
