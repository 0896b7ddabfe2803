//! A coordinator in memory: real gRPC on loopback, records from a script.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use rondo_proto::digest::Digest;
use rondo_proto::error::ErrorCode;
use rondo_proto::v1::*;
use rondo_wire::status::status;
use rondo_wire::stubs::administration_server::{Administration, AdministrationServer};
use rondo_wire::transfer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the coordinator answers.
#[derive(Clone, Default)]
pub(crate) struct Script {
    pub(crate) base: BaseModel,
    pub(crate) summary: RunSummary,
    pub(crate) run_file: String,
    pub(crate) rounds: Vec<RoundRecord>,
    /// One list per call of WatchRun; the stream ends after the list.
    pub(crate) updates: Vec<Vec<RunUpdate>>,
    pub(crate) adapter: GetAdapterReply,
    pub(crate) blobs: BTreeMap<String, PathBuf>,
    /// What was asked, in words.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

struct Fake {
    script: Script,
    watched: Mutex<usize>,
}

/// Starts it and connects.
pub(crate) async fn start(script: Script) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = AdministrationServer::new(Fake { script, watched: Mutex::new(0) });
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

fn unknown(what: &str) -> Status {
    status(ErrorCode::NotFound, format!("no {what} here"), Some("look at the list"))
}

impl Fake {
    fn noted<T>(&self, what: impl Into<String>, answer: T) -> Answer<T> {
        self.script.asked.lock().unwrap().push(what.into());
        Ok(Response::new(answer))
    }

    fn client(&self, verb: &str, request: Request<GetClientRequest>) -> Answer<ClientInfo> {
        let client = request.into_inner().client;
        let state = verb.to_owned();
        self.noted(format!("{verb} {client}"), ClientInfo { client, state, ..ClientInfo::default() })
    }

    fn run(&self, verb: &str, request: Request<GetRunRequest>) -> Answer<RunSummary> {
        let run = request.into_inner().run;
        if run != self.script.summary.run {
            return Err(unknown(&format!("run {run:?}")));
        }
        self.noted(format!("{verb} {run}"), self.script.summary.clone())
    }
}

#[tonic::async_trait]
impl Administration for Fake {
    type WatchRunStream = Items<RunUpdate>;
    type FetchBlobStream = Items<Chunk>;

    async fn get_info(&self, _: Request<GetInfoRequest>) -> Answer<ServerInfo> {
        self.noted("info", ServerInfo::default())
    }
    async fn add_base(&self, request: Request<BaseModel>) -> Answer<BaseModel> {
        self.noted("add base", request.into_inner())
    }
    async fn list_bases(&self, _: Request<ListBasesRequest>) -> Answer<ListBasesReply> {
        self.noted("bases", ListBasesReply { bases: vec![self.script.base.clone()] })
    }
    async fn get_base(&self, _: Request<GetBaseRequest>) -> Answer<BaseModel> {
        self.noted("base", self.script.base.clone())
    }
    async fn create_run(&self, request: Request<CreateRunRequest>) -> Answer<RunSummary> {
        let CreateRunRequest { run_file, initial_digest } = request.into_inner();
        let summary = RunSummary { initial_digest, ..self.script.summary.clone() };
        self.noted(run_file, summary)
    }
    async fn upload_initial(&self, request: Request<Streaming<InitialMessage>>) -> Answer<InitialAdapter> {
        let mut messages = request.into_inner();
        let mut header = InitialHeader::default();
        let mut bytes = Vec::new();
        while let Some(message) = messages.message().await? {
            match message.part {
                Some(initial_message::Part::Header(first)) => header = first,
                Some(initial_message::Part::Data(data)) => bytes.extend_from_slice(&data),
                None => {}
            }
        }
        assert_eq!((header.total_bytes, header.digest.clone()), (bytes.len() as u64, Digest::of(&bytes).to_string()));
        let asked = format!("upload for {}: {}", header.base, header.digest);
        self.noted(asked, InitialAdapter { digest: header.digest, ..InitialAdapter::default() })
    }
    async fn list_runs(&self, _: Request<ListRunsRequest>) -> Answer<ListRunsReply> {
        self.noted("runs", ListRunsReply { runs: vec![self.script.summary.clone()] })
    }
    async fn get_run(&self, request: Request<GetRunRequest>) -> Answer<GetRunReply> {
        let summary = Some(self.run("show", request)?.into_inner());
        let run_file = self.script.run_file.clone();
        Ok(Response::new(GetRunReply { summary, run_file, ..GetRunReply::default() }))
    }
    async fn watch_run(&self, request: Request<GetRunRequest>) -> Answer<Self::WatchRunStream> {
        self.run("watch", request)?;
        let mut watched = self.watched.lock().unwrap();
        let updates = self.script.updates.get(*watched).cloned().unwrap_or_default();
        *watched += 1;
        Ok(Response::new(Box::pin(tokio_stream::iter(updates.into_iter().map(Ok)))))
    }
    async fn pause_run(&self, request: Request<GetRunRequest>) -> Answer<RunSummary> {
        self.run("pause", request)
    }
    async fn resume_run(&self, request: Request<GetRunRequest>) -> Answer<RunSummary> {
        self.run("resume", request)
    }
    async fn cancel_run(&self, request: Request<GetRunRequest>) -> Answer<RunSummary> {
        self.run("cancel", request)
    }
    async fn list_rounds(&self, _: Request<GetRunRequest>) -> Answer<ListRoundsReply> {
        self.noted("rounds", ListRoundsReply { rounds: self.script.rounds.clone() })
    }
    async fn get_round(&self, request: Request<GetRoundRequest>) -> Answer<RoundRecord> {
        let round = request.into_inner().round;
        let record = self.script.rounds.iter().find(|record| record.round == round).cloned();
        self.noted("round", record.ok_or_else(|| unknown(&format!("round {round}")))?)
    }
    async fn list_clients(&self, _: Request<ListClientsRequest>) -> Answer<ListClientsReply> {
        let client = ClientInfo { client: "movies".to_owned(), state: "active".to_owned(), ..ClientInfo::default() };
        self.noted("clients", ListClientsReply { clients: vec![client] })
    }
    async fn get_client(&self, request: Request<GetClientRequest>) -> Answer<ClientInfo> {
        self.client("show", request)
    }
    async fn approve_client(&self, request: Request<GetClientRequest>) -> Answer<ClientInfo> {
        self.client("approve", request)
    }
    async fn drain_client(&self, request: Request<GetClientRequest>) -> Answer<ClientInfo> {
        self.client("drain", request)
    }
    async fn revoke_client(&self, request: Request<GetClientRequest>) -> Answer<ClientInfo> {
        self.client("revoke", request)
    }
    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Answer<CreateTokenReply> {
        let CreateTokenRequest { name, role, ttl_s, needs_approval, renews } = request.into_inner();
        let asked = format!("token {name} {role} {ttl_s} {needs_approval}");
        let info = Some(TokenInfo { id: "7".to_owned(), name, role, needs_approval, renews, ..TokenInfo::default() });
        self.noted(asked, CreateTokenReply { info, token: "T0KEN".to_owned(), ca_fingerprint: "f00d".to_owned() })
    }
    async fn list_tokens(&self, _: Request<ListTokensRequest>) -> Answer<ListTokensReply> {
        self.noted("tokens", ListTokensReply::default())
    }
    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Answer<Ack> {
        self.noted(format!("revoke token {}", request.into_inner().id), Ack {})
    }
    async fn list_operators(&self, _: Request<ListOperatorsRequest>) -> Answer<ListOperatorsReply> {
        self.noted("operators", ListOperatorsReply::default())
    }
    async fn revoke_operator(&self, request: Request<RevokeOperatorRequest>) -> Answer<Ack> {
        self.noted(format!("revoke operator {}", request.into_inner().name), Ack {})
    }
    async fn get_adapter(&self, _: Request<GetAdapterRequest>) -> Answer<GetAdapterReply> {
        self.noted("adapter", self.script.adapter.clone())
    }
    async fn fetch_blob(&self, request: Request<DownloadRequest>) -> Answer<Self::FetchBlobStream> {
        let DownloadRequest { digest, offset, .. } = request.into_inner();
        let path = self.script.blobs.get(&digest).ok_or_else(|| unknown("blob"))?;
        let chunks = transfer::stream(transfer::chunks(path, offset)?);
        Ok(Response::new(Box::pin(chunks.map(|chunk| chunk.map_err(Status::from)))))
    }
}
