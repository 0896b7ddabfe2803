//! A coordinator that hands out a list of work and
//! remembers what was reported to it. Breaks on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rondo_client::api::{Api, ApiError, Chunks, UploadMessages};
use rondo_proto::Digest;
use rondo_proto::error::ErrorCode;
use rondo_proto::v1::{self, poll_reply::Next, upload_message::Part};
use rondo_wire::transfer;
use tokio_stream::StreamExt;

/// Run, round and attempt.
pub type Id = (String, u32, u32);

/// What goes wrong next; each counts down or is used up.
#[derive(Default)]
pub struct Trouble {
    /// Polls that find nobody.
    pub polls_fail: u32,
    /// The next upload breaks once so many bytes are stored.
    pub upload_breaks_at: Option<usize>,
    /// The next upload never gets an answer.
    pub upload_hangs: bool,
    /// The next upload is stored and its answer is lost.
    pub upload_reply_lost: bool,
    /// The next upload is accepted and then forgotten, as by a coordinator that lost its disk.
    pub forgets: bool,
    /// Uploads that the coordinator fails to take, through a fault of its own.
    pub uploads_fail: u32,
    /// Reports of failures that the coordinator fails to take.
    pub reports_fail: u32,
    /// Uploads that come when their attempt is over; the next attempt is asked for.
    pub stale_attempts: u32,
    /// The next finished upload is refused at the door.
    pub door_refuses: Option<&'static str>,
    /// The next download breaks after so many bytes.
    pub download_breaks_at: Option<usize>,
    /// The next download brings other bytes.
    pub download_lies: bool,
    /// Every heartbeat is answered with this reason to stop.
    pub stop: Option<&'static str>,
}

/// What the coordinator knows.
#[derive(Default)]
pub struct Book {
    pub work: VecDeque<Next>,
    pub trouble: Trouble,
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub introduction: Option<v1::PollRequest>,
    pub answers: Vec<v1::AnswerRequest>,
    pub heartbeats: Vec<v1::HeartbeatRequest>,
    pub evaluations: Vec<v1::EvaluationReport>,
    pub failures: Vec<v1::FailureReport>,
    /// Bytes stored of each upload, and the header that came last.
    pub uploads: BTreeMap<Id, (Vec<u8>, v1::UploadHeader)>,
    pub accepted: BTreeSet<Id>,
    /// How often an update was counted, and every offset at which an upload began.
    pub counted: BTreeMap<Id, u32>,
    pub upload_offsets: Vec<u64>,
    pub download_offsets: Vec<u64>,
    pub polls: u32,
    /// Runs that are over, as every poll says.
    pub ended_runs: Vec<String>,
}

impl Book {
    /// Takes work off the list once it is settled.
    fn settle(&mut self, run: &str, round: u32, is: impl Fn(&Next) -> bool) {
        self.work.retain(|next| {
            let about = match next {
                Next::Assignment(assignment) => assignment.run == run && assignment.round == round,
                Next::Invitation(invitation) => invitation.run == run,
                Next::Wait(_) => false,
            };
            !(about && is(next))
        });
    }
}

#[derive(Clone, Default)]
pub struct Coordinator(Arc<Mutex<Book>>);

impl Coordinator {
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap()
    }

    /// Adds work at the end of the list.
    pub fn give(&self, next: Next) {
        self.book().work.push_back(next);
    }

    /// Offers a blob and answers its digest.
    pub fn offer(&self, bytes: Vec<u8>) -> String {
        let digest = Digest::of(&bytes).to_string();
        self.book().blobs.insert(digest.clone(), bytes);
        digest
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, so: impl Fn(&Book) -> bool) {
        for _ in 0..3000 {
            if so(&self.book()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let book = self.book();
        panic!("never happened: {what}; failures {:?}, answers {:?}", book.failures, book.answers);
    }
}

fn error(code: ErrorCode, message: &str) -> ApiError {
    ApiError { call: "test", code, message: message.to_owned(), hint: None }
}

fn away() -> ApiError {
    error(ErrorCode::Unavailable, "connection refused")
}

fn id(key: &v1::UploadKey) -> Id {
    (key.run.clone(), key.round, key.attempt)
}

impl Api for Coordinator {
    async fn poll(&self, request: v1::PollRequest) -> Result<v1::PollReply, ApiError> {
        let mut book = self.book();
        book.polls += 1;
        if book.trouble.polls_fail > 0 {
            book.trouble.polls_fail -= 1;
            return Err(away());
        }
        book.introduction = Some(request);
        let next = book.work.front().cloned();
        let next = Some(next.unwrap_or_else(|| Next::Wait(v1::Wait::default())));
        Ok(v1::PollReply { next, ended_runs: book.ended_runs.clone() })
    }

    async fn answer(&self, request: v1::AnswerRequest) -> Result<(), ApiError> {
        let mut book = self.book();
        book.settle(&request.run, 0, |next| matches!(next, Next::Invitation(_)));
        book.answers.push(request);
        Ok(())
    }

    async fn download(&self, request: v1::DownloadRequest) -> Result<Chunks, ApiError> {
        let mut book = self.book();
        book.download_offsets.push(request.offset);
        let blob = book.blobs.get(&request.digest).ok_or_else(|| ApiError {
            call: "download",
            hint: Some("blobs are dropped when no round needs them".to_owned()),
            ..error(ErrorCode::NotFound, "no such blob")
        })?;
        let total_bytes = blob.len() as u64;
        let mut data = blob[request.offset as usize..].to_vec();
        let breaks_at = book.trouble.download_breaks_at.take();
        if std::mem::take(&mut book.trouble.download_lies) {
            data.iter_mut().for_each(|byte| *byte ^= 1);
        }
        if let Some(at) = breaks_at {
            data.truncate(at);
        }
        let mut chunks: Vec<Result<v1::Chunk, ApiError>> = data
            .chunks(1000)
            .enumerate()
            .map(|(n, data)| {
                Ok(v1::Chunk { data: data.to_vec().into(), total_bytes: if n == 0 { total_bytes } else { 0 } })
            })
            .collect();
        if breaks_at.is_some() {
            chunks.push(Err(away()));
        }
        Ok(Box::pin(tokio_stream::iter(chunks)))
    }

    async fn upload_status(&self, key: v1::UploadKey) -> Result<v1::UploadStatusReply, ApiError> {
        let mut book = self.book();
        if book.trouble.stale_attempts > 0 {
            book.trouble.stale_attempts -= 1;
            if let Some(Next::Assignment(assignment)) = book.work.front_mut() {
                assignment.attempt += 1;
            }
            return Err(error(ErrorCode::FailedPrecondition, "the run is in the next attempt"));
        }
        let stored_bytes = book.uploads.get(&id(&key)).map_or(0, |(bytes, _)| bytes.len() as u64);
        Ok(v1::UploadStatusReply { stored_bytes, accepted: book.accepted.contains(&id(&key)) })
    }

    async fn upload(&self, _: u64, mut messages: UploadMessages) -> Result<v1::UploadReply, ApiError> {
        let Some(Part::Header(header)) = messages.next().await.and_then(|message| message.part) else {
            return Err(error(ErrorCode::InvalidArgument, "no header"));
        };
        let id = id(header.key.as_ref().unwrap());
        let (hangs, breaks_at) = {
            let mut book = self.book();
            if book.trouble.uploads_fail > 0 {
                book.trouble.uploads_fail -= 1;
                return Err(error(ErrorCode::Internal, "the coordinator's disk fails"));
            }
            book.upload_offsets.push(header.offset);
            let stored = &mut book.uploads.entry(id.clone()).or_insert_with(|| (Vec::new(), header.clone())).0;
            stored.truncate(header.offset as usize);
            assert_eq!(stored.len() as u64, header.offset);
            (std::mem::take(&mut book.trouble.upload_hangs), book.trouble.upload_breaks_at.take())
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        while let Some(message) = messages.next().await {
            let Some(Part::Data(data)) = message.part else { panic!("a second header") };
            assert!(data.len() <= transfer::CHUNK_BYTES);
            let mut book = self.book();
            let stored = &mut book.uploads.get_mut(&id).unwrap().0;
            stored.extend_from_slice(&data);
            if let Some(at) = breaks_at {
                stored.truncate(at);
                return Err(away());
            }
        }
        let mut book = self.book();
        let stored = book.uploads[&id].0.clone();
        assert_eq!(Digest::of(&stored).to_string(), header.key.as_ref().unwrap().digest);
        if let Some(reason) = book.trouble.door_refuses.take() {
            book.settle(&id.0, id.1, |_| true);
            return Err(error(ErrorCode::InvalidArgument, reason));
        }
        if std::mem::take(&mut book.trouble.forgets) {
            book.uploads.remove(&id);
            return Ok(v1::UploadReply { stored_bytes: stored.len() as u64, accepted: true });
        }
        if book.accepted.insert(id.clone()) {
            *book.counted.entry(id.clone()).or_default() += 1;
        }
        book.settle(&id.0, id.1, |next| matches!(next, Next::Assignment(a) if a.kind() != v1::WorkKind::Evaluate));
        book.uploads.get_mut(&id).unwrap().1 = header;
        if std::mem::take(&mut book.trouble.upload_reply_lost) {
            return Err(away());
        }
        Ok(v1::UploadReply { stored_bytes: stored.len() as u64, accepted: true })
    }

    async fn heartbeat(&self, request: v1::HeartbeatRequest) -> Result<v1::HeartbeatReply, ApiError> {
        let mut book = self.book();
        book.heartbeats.push(request.clone());
        let stop = book.trouble.stop.filter(|_| request.step > 0);
        if stop.is_some() {
            book.settle(&request.run, request.round, |_| true);
        }
        Ok(v1::HeartbeatReply { stop: stop.is_some(), reason: stop.unwrap_or_default().to_owned() })
    }

    async fn report_evaluation(&self, report: v1::EvaluationReport) -> Result<(), ApiError> {
        let mut book = self.book();
        book.settle(
            &report.run,
            report.round,
            |next| matches!(next, Next::Assignment(a) if a.kind() == v1::WorkKind::Evaluate),
        );
        book.evaluations.push(report);
        Ok(())
    }

    async fn report_failure(&self, report: v1::FailureReport) -> Result<(), ApiError> {
        let mut book = self.book();
        if book.trouble.reports_fail > 0 {
            book.trouble.reports_fail -= 1;
            return Err(error(ErrorCode::Internal, "the coordinator's disk fails"));
        }
        book.settle(&report.run, report.round, |next| matches!(next, Next::Assignment(_)));
        book.failures.push(report);
        Ok(())
    }
}
