//! What operators call. Who did what is logged.

use std::sync::Arc;

use rondo_proto::error::ErrorCode;
use rondo_proto::v1::{
    Ack, BaseModel, Chunk, ClientInfo, CreateRunRequest, CreateTokenReply, CreateTokenRequest, DownloadRequest,
    GetAdapterReply, GetAdapterRequest, GetBaseRequest, GetClientRequest, GetInfoRequest, GetRoundRequest, GetRunReply,
    GetRunRequest, InitialAdapter, InitialMessage, ListBasesReply, ListBasesRequest, ListClientsReply,
    ListClientsRequest, ListOperatorsReply, ListOperatorsRequest, ListRoundsReply, ListRunsReply, ListRunsRequest,
    ListTokensReply, ListTokensRequest, RevokeOperatorRequest, RevokeTokenRequest, RoundRecord, RunSummary, RunUpdate,
    ServerInfo,
};
use rondo_proto::{ClientId, RunId};
use rondo_rounds::Input;
use rondo_wire::status::status;
use rondo_wire::stubs::administration_server::Administration;
use tonic::{Request, Response, Status, Streaming};

use super::download::parse_request;
use super::identity::operator;
use super::{Replies, Shared, invalid, run_id};
use crate::bases::{self, RegisterBaseError};
use crate::members::Member;
use crate::start_adapters::StartAdapters;
use crate::tls::Role;
use crate::tokens::TokenRecord;

/// The service.
pub struct AdministrationService(pub Arc<Shared>);

impl From<RegisterBaseError> for Status {
    fn from(error: RegisterBaseError) -> Self {
        match &error {
            RegisterBaseError::Invalid { .. } => invalid(error),
            RegisterBaseError::OtherDigest { .. } | RegisterBaseError::OtherTokens { .. } => {
                let hint = "register the other model under another name";
                status(ErrorCode::AlreadyExists, error.to_string(), Some(hint))
            }
            RegisterBaseError::Store(_) => status(ErrorCode::Unavailable, error.to_string(), None),
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Shared {
    /// The registered base of that name.
    fn base(&self, name: &str) -> Result<BaseModel, Status> {
        bases::find(&*self.store, name)?.ok_or_else(|| {
            let hint = Some("`rondo base list` shows those there are");
            status(ErrorCode::NotFound, format!("there is no base model `{name}`"), hint)
        })
    }
}

impl AdministrationService {
    /// Who calls, and the run it is about.
    fn run<T>(&self, request: &Request<T>, run: &str) -> Result<RunId, Status> {
        operator(request)?;
        run_id(run)
    }

    /// The same for a call that changes something.
    fn run_to_change(&self, request: &Request<GetRunRequest>, verb: &str) -> Result<RunId, Status> {
        let operator = operator(request)?;
        let run = run_id(&request.get_ref().run)?;
        tracing::info!(operator, %run, verb, "operator command for a run");
        Ok(run)
    }

    fn client_to_change(&self, request: &Request<GetClientRequest>, verb: &str) -> Result<ClientId, Status> {
        let operator = operator(request)?;
        let client = ClientId::new(request.get_ref().client.as_str()).map_err(invalid)?;
        tracing::info!(operator, %client, verb, "operator command for a client");
        Ok(client)
    }
}

#[tonic::async_trait]
impl Administration for AdministrationService {
    async fn get_info(&self, request: Request<GetInfoRequest>) -> Result<Response<ServerInfo>, Status> {
        operator(&request)?;
        let (runs, clients) = self.0.driver.view(|engine| (engine.runs().len(), engine.clients().len())).await?;
        Ok(Response::new(ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms: self.0.clock.now(),
            started_at_ms: self.0.started_at_ms,
            runs: count(runs),
            clients: count(clients),
            certificate_expires_ms: self.0.certificate.expires_ms(),
        }))
    }

    async fn add_base(&self, request: Request<BaseModel>) -> Result<Response<BaseModel>, Status> {
        let operator = operator(&request)?;
        let base = request.into_inner();
        let _writing = self.0.writing.lock().await;
        let batch = bases::register(&*self.0.store, &base)?;
        self.0.driver.commit(batch).await?;
        tracing::info!(operator, base = base.name, digest = base.digest, "base model registered");
        Ok(Response::new(base))
    }

    async fn list_bases(&self, request: Request<ListBasesRequest>) -> Result<Response<ListBasesReply>, Status> {
        operator(&request)?;
        Ok(Response::new(ListBasesReply { bases: bases::all(&*self.0.store)? }))
    }

    async fn get_base(&self, request: Request<GetBaseRequest>) -> Result<Response<BaseModel>, Status> {
        operator(&request)?;
        Ok(Response::new(self.0.base(&request.get_ref().name)?))
    }

    async fn upload_initial(
        &self,
        request: Request<Streaming<InitialMessage>>,
    ) -> Result<Response<InitialAdapter>, Status> {
        let operator = operator(&request)?;
        let mut messages = request.into_inner();
        let header = StartAdapters::header(&mut messages).await?;
        let base = self.0.base(&header.base)?;
        let initial = self.0.start_adapters.receive(&header, base, &mut messages).await?;
        tracing::info!(
            operator,
            base = header.base,
            digest = initial.digest,
            bytes = initial.bytes,
            "adapter uploaded"
        );
        Ok(Response::new(initial))
    }

    async fn create_run(&self, request: Request<CreateRunRequest>) -> Result<Response<RunSummary>, Status> {
        let operator = operator(&request)?;
        let CreateRunRequest { run_file, initial_digest } = request.into_inner();
        let summary = self.0.create_run(run_file, &initial_digest).await?;
        tracing::info!(operator, run = summary.run, method = summary.method, "run created");
        Ok(Response::new(summary))
    }

    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Result<Response<ListRunsReply>, Status> {
        operator(&request)?;
        Ok(Response::new(ListRunsReply { runs: self.0.driver.view(|engine| engine.runs()).await? }))
    }

    async fn get_run(&self, request: Request<GetRunRequest>) -> Result<Response<GetRunReply>, Status> {
        let run = self.run(&request, &request.get_ref().run)?;
        Ok(Response::new(self.0.show_run(&run).await?))
    }

    type WatchRunStream = Replies<RunUpdate>;

    async fn watch_run(&self, request: Request<GetRunRequest>) -> Result<Response<Replies<RunUpdate>>, Status> {
        let run = self.run(&request, &request.get_ref().run)?;
        Ok(Response::new(self.0.watch(run).await?))
    }

    async fn pause_run(&self, request: Request<GetRunRequest>) -> Result<Response<RunSummary>, Status> {
        let run = self.run_to_change(&request, "pause")?;
        Ok(Response::new(self.0.change_run(Input::Pause { run }).await?))
    }

    async fn resume_run(&self, request: Request<GetRunRequest>) -> Result<Response<RunSummary>, Status> {
        let run = self.run_to_change(&request, "resume")?;
        Ok(Response::new(self.0.change_run(Input::Resume { run }).await?))
    }

    async fn cancel_run(&self, request: Request<GetRunRequest>) -> Result<Response<RunSummary>, Status> {
        let run = self.run_to_change(&request, "cancel")?;
        Ok(Response::new(self.0.change_run(Input::Cancel { run }).await?))
    }

    async fn list_rounds(&self, request: Request<GetRunRequest>) -> Result<Response<ListRoundsReply>, Status> {
        let run = self.run(&request, &request.get_ref().run)?;
        let rounds = self.0.read_run(&run, |engine, run| engine.run_summary(run).map(|_| engine.rounds(run))).await?;
        Ok(Response::new(ListRoundsReply { rounds }))
    }

    async fn get_round(&self, request: Request<GetRoundRequest>) -> Result<Response<RoundRecord>, Status> {
        let run = self.run(&request, &request.get_ref().run)?;
        Ok(Response::new(self.0.show_round(&run, request.get_ref().round).await?))
    }

    async fn list_clients(&self, request: Request<ListClientsRequest>) -> Result<Response<ListClientsReply>, Status> {
        operator(&request)?;
        Ok(Response::new(ListClientsReply { clients: self.0.driver.view(|engine| engine.clients()).await? }))
    }

    async fn get_client(&self, request: Request<GetClientRequest>) -> Result<Response<ClientInfo>, Status> {
        operator(&request)?;
        let client = ClientId::new(request.get_ref().client.as_str()).map_err(invalid)?;
        let asked = client.clone();
        let info = self.0.driver.view(move |engine| engine.client(&asked)).await?.ok_or_else(|| {
            let hint = Some("`rondo client list` shows those there are");
            status(ErrorCode::NotFound, format!("there is no client `{client}`"), hint)
        })?;
        Ok(Response::new(info))
    }

    async fn approve_client(&self, request: Request<GetClientRequest>) -> Result<Response<ClientInfo>, Status> {
        let client = self.client_to_change(&request, "approve")?;
        Ok(Response::new(self.0.change_client(Input::Approve { client }).await?))
    }

    async fn drain_client(&self, request: Request<GetClientRequest>) -> Result<Response<ClientInfo>, Status> {
        let client = self.client_to_change(&request, "drain")?;
        Ok(Response::new(self.0.change_client(Input::Drain { client }).await?))
    }

    async fn revoke_client(&self, request: Request<GetClientRequest>) -> Result<Response<ClientInfo>, Status> {
        let client = self.client_to_change(&request, "revoke")?;
        Ok(Response::new(self.0.revoke_client(client).await?))
    }

    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Result<Response<CreateTokenReply>, Status> {
        let operator = operator(&request)?;
        let reply = self.0.create_token(request.into_inner()).await?;
        let id = reply.info.as_ref().map_or("", |info| info.id.as_str());
        tracing::info!(operator, token = id, "join token made");
        Ok(Response::new(reply))
    }

    async fn list_tokens(&self, request: Request<ListTokensRequest>) -> Result<Response<ListTokensReply>, Status> {
        operator(&request)?;
        let tokens = TokenRecord::all(&*self.0.store)?.iter().map(TokenRecord::info).collect();
        Ok(Response::new(ListTokensReply { tokens }))
    }

    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Result<Response<Ack>, Status> {
        let operator = operator(&request)?;
        let id = request.into_inner().id;
        self.0.revoke_token(&id).await?;
        tracing::info!(operator, token = id, "join token revoked");
        Ok(Response::new(Ack {}))
    }

    async fn list_operators(
        &self,
        request: Request<ListOperatorsRequest>,
    ) -> Result<Response<ListOperatorsReply>, Status> {
        operator(&request)?;
        let operators = Member::all(&*self.0.store, Role::Operator)?;
        Ok(Response::new(ListOperatorsReply { operators: operators.iter().map(Member::operator_info).collect() }))
    }

    async fn revoke_operator(&self, request: Request<RevokeOperatorRequest>) -> Result<Response<Ack>, Status> {
        let operator = operator(&request)?;
        let name = request.into_inner().name;
        self.0.revoke_operator(&name).await?;
        tracing::info!(operator, revoked = name, "operator revoked");
        Ok(Response::new(Ack {}))
    }

    async fn get_adapter(&self, request: Request<GetAdapterRequest>) -> Result<Response<GetAdapterReply>, Status> {
        let run = self.run(&request, &request.get_ref().run)?;
        Ok(Response::new(self.0.adapter(&run, request.get_ref().round).await?))
    }

    type FetchBlobStream = Replies<Chunk>;

    async fn fetch_blob(&self, request: Request<DownloadRequest>) -> Result<Response<Replies<Chunk>>, Status> {
        operator(&request)?;
        let (run, digest, offset) = parse_request(request.get_ref())?;
        Ok(Response::new(self.0.send_blob(run, digest, offset, None).await?))
    }
}
