//! A client that speaks the protocol and trains nothing: its updates are random numbers in the
//! layout's shapes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rondo_methods::Kind;

use rondo_proto::v1::poll_reply::Next;
use rondo_proto::v1::upload_message::Part as UploadPart;
use rondo_proto::{Digest, v1};
use rondo_wire::identity::{self, Identity, enrol};
use rondo_wire::stubs::federation_client::FederationClient;
use rondo_wire::transfer::CHUNK_BYTES;
use tonic::Status;
use tonic::transport::Channel;

use crate::coordinator::{Coordinator, Operator, channel};
use crate::tensors::{base, update, wide_base};

pub(crate) struct FakeClient {
    pub(crate) identity: Identity,
    pub(crate) api: FederationClient<Channel>,
    seed: u64,
    /// Data sets it says it has.
    pub(crate) datasets: Vec<String>,
    /// Digests of the base models it says it has.
    pub(crate) bases: Vec<String>,
    /// What it measures, by round.
    pub(crate) loss: fn(u32) -> f64,
    /// Digests of the blobs it has; each is fetched once.
    held: BTreeSet<String>,
}

/// What a step of a client was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Did {
    Waited,
    Answered,
    WarmedUp,
    Trained,
    Evaluated,
}

impl FakeClient {
    /// Joins with a token of its own.
    pub(crate) async fn join(coordinator: &Coordinator, dir: &Path, name: &str) -> Self {
        Self::join_at(&coordinator.operator(), coordinator.address, dir, name).await
    }

    pub(crate) async fn join_at(operator: &Operator, address: SocketAddr, dir: &Path, name: &str) -> Self {
        let made = operator.token(name).await;
        let url = format!("https://{address}");
        let enrolled = enrol(&url, &made.token, &made.ca_fingerprint, name, &dir.join(name)).await.unwrap();
        Self::of(enrolled.identity, address)
    }

    /// Goes on with an identity that it has in a folder.
    pub(crate) fn load(dir: &Path, address: SocketAddr) -> Self {
        Self::of(identity::load(dir).unwrap(), address)
    }

    fn of(identity: Identity, address: SocketAddr) -> Self {
        let seed = identity.name.bytes().fold(1, |seed, byte| seed * 31 + u64::from(byte));
        let api = FederationClient::new(channel(&identity, address));
        let datasets = vec!["reviews".to_owned()];
        let bases = vec![base().digest, wide_base().digest];
        let loss: fn(u32) -> f64 = |_| 0.5;
        Self { api, identity, seed, datasets, bases, loss, held: BTreeSet::new() }
    }

    /// Goes on with a coordinator that listens elsewhere now.
    pub(crate) fn reconnect(&mut self, address: SocketAddr) {
        self.api = FederationClient::new(channel(&self.identity, address));
    }

    pub(crate) async fn poll(&mut self) -> Result<Next, Status> {
        let request = v1::PollRequest {
            version: "test".into(),
            datasets: self.datasets.clone(),
            bases: self.bases.clone(),
            max_rank: 0,
            reserved_runs: Vec::new(),
            tokens: Vec::new(),
        };
        Ok(self.api.poll(request).await?.into_inner().next.unwrap())
    }

    /// Polls until there is an assignment; answers yes to invitations.
    pub(crate) async fn assignment(&mut self) -> v1::Assignment {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            assert!(Instant::now() < until, "{} got no work", self.identity.name);
            match self.poll().await.unwrap() {
                Next::Assignment(assignment) => return assignment,
                Next::Invitation(invitation) => self.accept(&invitation.run).await.unwrap(),
                Next::Wait(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// One poll: the assignment, if there is one.
    pub(crate) async fn assignment_or_wait(&mut self) -> Option<v1::Assignment> {
        match self.poll().await.unwrap() {
            Next::Assignment(assignment) => Some(assignment),
            _ => None,
        }
    }

    async fn accept(&mut self, run: &str) -> Result<(), Status> {
        let request = v1::AnswerRequest { run: run.into(), accept: true, ..Default::default() };
        self.api.answer(request).await.map(|_| ())
    }

    /// One poll and what follows from it.
    pub(crate) async fn step(&mut self) -> Result<Did, Status> {
        match self.poll().await? {
            Next::Wait(_) => Ok(Did::Waited),
            Next::Invitation(invitation) => {
                self.accept(&invitation.run).await?;
                Ok(Did::Answered)
            }
            Next::Assignment(assignment) => self.work(&assignment).await,
        }
    }

    pub(crate) async fn work(&mut self, assignment: &v1::Assignment) -> Result<Did, Status> {
        self.fetch(assignment).await?;
        let v1::Assignment { run, round, attempt, .. } = assignment.clone();
        let state = match assignment.kind() {
            v1::WorkKind::Evaluate => "evaluating",
            v1::WorkKind::WarmUp => "warm-up",
            _ => "training",
        };
        let heartbeat = v1::HeartbeatRequest {
            run: run.clone(),
            round,
            attempt,
            state: state.into(),
            step: 1,
            steps: 2,
            loss: 0.7,
        };
        assert!(!self.api.heartbeat(heartbeat).await?.into_inner().stop);
        if assignment.kind() == v1::WorkKind::Evaluate {
            let loss = (self.loss)(round);
            let evaluation = Some(v1::Evaluation { loss, accuracy: 0.75, examples: 40, ..Default::default() });
            self.api.report_evaluation(v1::EvaluationReport { run, round, evaluation, min_group: 0 }).await?;
            return Ok(Did::Evaluated);
        }
        let bytes = self.update(assignment);
        let reply = self.upload(assignment, &bytes).await?;
        assert!(reply.accepted, "{reply:?}");
        Ok(if kind(assignment) == Kind::WarmUp { Did::WarmedUp } else { Did::Trained })
    }

    /// The update this client has for an assignment; the same each time.
    pub(crate) fn update(&self, assignment: &v1::Assignment) -> Vec<u8> {
        let seed = self.seed + u64::from(assignment.round);
        let base = assignment.base.clone().unwrap();
        update(&assignment.run_file, &base, kind(assignment), assignment.round, assignment.rank, seed)
    }

    /// Downloads the state that an assignment names and checks every digest.
    pub(crate) async fn fetch(&mut self, assignment: &v1::Assignment) -> Result<(), Status> {
        let state = assignment.state.clone().unwrap_or_default();
        let published = state.published.into_iter().map(|published| published.digest);
        let others = [state.frozen_digest, state.initial_digest];
        let digests: Vec<String> = published.chain(others).filter(|digest| !digest.is_empty()).collect();
        for digest in digests {
            if !self.held.contains(&digest) {
                let bytes = self.download(&assignment.run, &digest, 0).await?;
                assert_eq!(Digest::of(&bytes).to_string(), digest);
                self.held.insert(digest);
            }
        }
        Ok(())
    }

    pub(crate) async fn download(&mut self, run: &str, digest: &str, offset: u64) -> Result<Vec<u8>, Status> {
        let request = v1::DownloadRequest { run: run.into(), digest: digest.into(), offset };
        let mut chunks = self.api.download(request).await?.into_inner();
        let mut bytes = Vec::new();
        let mut total = None;
        while let Some(chunk) = chunks.message().await? {
            total.get_or_insert(chunk.total_bytes);
            bytes.extend_from_slice(&chunk.data);
        }
        assert_eq!(total, Some(offset + bytes.len() as u64), "the first chunk says how much there is");
        Ok(bytes)
    }

    pub(crate) async fn upload(
        &mut self,
        assignment: &v1::Assignment,
        bytes: &[u8],
    ) -> Result<v1::UploadReply, Status> {
        self.send(header(assignment, bytes), bytes).await
    }

    /// Sends a header and the data behind its offset.
    pub(crate) async fn send(&mut self, header: v1::UploadHeader, data: &[u8]) -> Result<v1::UploadReply, Status> {
        let offset = (header.offset as usize).min(data.len());
        Ok(self.api.upload(tokio_stream::iter(messages(header, &data[offset..]))).await?.into_inner())
    }

    pub(crate) async fn upload_status(&mut self, header: &v1::UploadHeader) -> Result<v1::UploadStatusReply, Status> {
        Ok(self.api.upload_status(header.key.clone().unwrap()).await?.into_inner())
    }
}

pub(crate) fn messages(header: v1::UploadHeader, data: &[u8]) -> Vec<v1::UploadMessage> {
    let data = data.chunks(CHUNK_BYTES).map(|chunk| UploadPart::Data(bytes::Bytes::copy_from_slice(chunk)));
    std::iter::once(UploadPart::Header(header)).chain(data).map(|part| v1::UploadMessage { part: Some(part) }).collect()
}

pub(crate) fn kind(assignment: &v1::Assignment) -> Kind {
    if assignment.kind() == v1::WorkKind::WarmUp { Kind::WarmUp } else { Kind::Train }
}

pub(crate) fn header(assignment: &v1::Assignment, bytes: &[u8]) -> v1::UploadHeader {
    let v1::Assignment { run, round, attempt, rank, state, .. } = assignment.clone();
    let digest = Digest::of(bytes).to_string();
    // With privacy an update tells nothing but its tensors.
    let shown = if assignment.run_file.contains("[privacy]") { 0 } else { 1 };
    v1::UploadHeader {
        key: Some(v1::UploadKey { run, round, attempt, digest }),
        total_bytes: bytes.len() as u64,
        offset: 0,
        examples: 64 * shown,
        train_loss: 0.6 * shown as f64,
        train_seconds: 1.5 * shown as f64,
        rank,
        base_version: state.map_or(0, |state| state.published.len() as u32),
        ..Default::default()
    }
}

/// Lets all clients work until the run has ended.
pub(crate) async fn work_until_ended(clients: &mut [FakeClient], operator: &Operator, run: &str) -> v1::RunSummary {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let mut idle = true;
        for client in clients.iter_mut() {
            idle &= client.step().await.unwrap() == Did::Waited;
        }
        let summary = operator.run(run).await;
        if summary.phase == "ended" {
            return summary;
        }
        assert!(Instant::now() < until, "the run does not end: {summary:#?}");
        if idle {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
