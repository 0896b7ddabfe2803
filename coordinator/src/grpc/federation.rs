//! What client daemons call.

use std::sync::Arc;

use rondo_proto::error::ErrorCode;
use rondo_proto::v1::{
    Ack, AnswerReply, AnswerRequest, Chunk, DownloadRequest, EvaluationReport, FailureReport, HeartbeatReply,
    HeartbeatRequest, PollReply, PollRequest, UploadKey, UploadMessage, UploadReply, UploadStatusReply,
};
use rondo_rounds::{Input, Reply, WorkKey};
use rondo_wire::status::status;
use rondo_wire::stubs::federation_server::Federation;
use tonic::{Request, Response, Status, Streaming};

use super::download::{DeliveryCounter, parse_request};
use super::identity::client;
use super::{Replies, Shared, run_id};
use crate::upload::upload_id;

/// Longest text a client may send along; more is cut by the engine or refused here.
const MAX_NAMES: usize = 256;

/// The service.
pub struct FederationService(pub Arc<Shared>);

fn work(run: &str, round: u32, attempt: u32) -> Result<WorkKey, Status> {
    Ok(WorkKey { run: run_id(run)?, round, attempt })
}

/// The engine answers each input with its own kind of reply.
fn unexpected(reply: &Reply) -> Status {
    status(ErrorCode::Internal, format!("the engine gave an answer of another kind: {reply:?}"), None)
}

#[tonic::async_trait]
impl Federation for FederationService {
    async fn poll(&self, request: Request<PollRequest>) -> Result<Response<PollReply>, Status> {
        let client = client(&request)?;
        let PollRequest { version, datasets, bases, max_rank, mut reserved_runs, tokens } = request.into_inner();
        if datasets.len() > MAX_NAMES || bases.len().max(tokens.len()) > MAX_NAMES {
            let message = format!("{} data sets and {} bases: at most {MAX_NAMES} each", datasets.len(), bases.len());
            return Err(status(ErrorCode::InvalidArgument, message, None));
        }
        match self.0.driver.step(Input::Poll { client, datasets, bases, tokens, max_rank, version }).await? {
            Reply::Poll(mut reply) => {
                if !reserved_runs.is_empty() {
                    reserved_runs.truncate(MAX_NAMES);
                    reply.ended_runs = self.0.driver.view(move |engine| engine.ended_among(reserved_runs)).await?;
                }
                Ok(Response::new(*reply))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn answer(&self, request: Request<AnswerRequest>) -> Result<Response<AnswerReply>, Status> {
        let client = client(&request)?;
        let AnswerRequest { run, accept, reason, rank, undecided } = request.into_inner();
        let run = run_id(&run)?;
        let input = match undecided && !accept {
            true => Input::Undecided { client, run, reason },
            false => Input::Answer { client, run, accept, reason, rank },
        };
        self.0.driver.step(input).await?;
        Ok(Response::new(AnswerReply {}))
    }

    type DownloadStream = Replies<Chunk>;

    async fn download(&self, request: Request<DownloadRequest>) -> Result<Response<Replies<Chunk>>, Status> {
        let client = client(&request)?;
        let (run, digest, offset) = parse_request(request.get_ref())?;
        let who = client.clone();
        let which = run.clone();
        if !self.0.driver.view(move |engine| engine.may_download(&who, &which, &digest)).await? {
            let message = format!("client `{client}` has no need of {digest} of run `{run}`");
            let hint = "only what the present assignment names may be fetched; poll again";
            return Err(status(ErrorCode::PermissionDenied, message, Some(hint)));
        }
        let count = DeliveryCounter { driver: self.0.driver.clone(), client };
        Ok(Response::new(self.0.send_blob(run, digest, offset, Some(count)).await?))
    }

    async fn upload_status(&self, request: Request<UploadKey>) -> Result<Response<UploadStatusReply>, Status> {
        let client = client(&request)?;
        let id = upload_id(&client, request.get_ref())?;
        Ok(Response::new(self.0.uploads.status(&id).await?))
    }

    async fn upload(&self, request: Request<Streaming<UploadMessage>>) -> Result<Response<UploadReply>, Status> {
        let client = client(&request)?;
        let messages = request.into_inner();
        let uploads = self.0.uploads.clone();
        let who = client.clone();
        let started = std::time::Instant::now();
        // A task of its own: what has come is kept, and what is whole is taken in, even when the
        // client goes away.
        let receiving = tokio::spawn(async move { uploads.receive(client, messages).await });
        let outcome = receiving.await.map_err(|e| status(ErrorCode::Internal, e.to_string(), None))?;
        match outcome {
            Ok(reply) => {
                let millis = started.elapsed().as_millis();
                tracing::debug!(client = %who, stored = reply.stored_bytes, accepted = reply.accepted, millis, "upload");
                Ok(Response::new(reply))
            }
            Err(error) => {
                tracing::info!(client = %who, %error, "upload not accepted");
                Err(error.into())
            }
        }
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatReply>, Status> {
        let client = client(&request)?;
        let HeartbeatRequest { run, round, attempt, state, step, steps, loss } = request.into_inner();
        let work = work(&run, round, attempt)?;
        match self.0.driver.step(Input::Heartbeat { client, work, state, step, steps, loss }).await? {
            Reply::Heartbeat { stop, reason } => Ok(Response::new(HeartbeatReply { stop, reason })),
            other => Err(unexpected(&other)),
        }
    }

    async fn report_evaluation(&self, request: Request<EvaluationReport>) -> Result<Response<Ack>, Status> {
        let client = client(&request)?;
        let EvaluationReport { run, round, evaluation, min_group } = request.into_inner();
        let run = run_id(&run)?;
        let evaluation =
            evaluation.ok_or_else(|| status(ErrorCode::InvalidArgument, "the report holds no evaluation", None))?;
        self.0.driver.step(Input::Evaluated { client, run, round, evaluation, min_group }).await?;
        Ok(Response::new(Ack {}))
    }

    async fn report_failure(&self, request: Request<FailureReport>) -> Result<Response<Ack>, Status> {
        let client = client(&request)?;
        let FailureReport { run, round, attempt, reason, metrics_withheld } = request.into_inner();
        let work = work(&run, round, attempt)?;
        let input = match metrics_withheld {
            true => Input::Withheld { client, work },
            false => Input::ClientFailed { client, work, reason },
        };
        self.0.driver.step(input).await?;
        Ok(Response::new(Ack {}))
    }
}
