//! What the engine wants done, and what it answers.

use rondo_dp::ClientPlan;
use rondo_proto::{ClientId, Digest, RunId, v1};

use crate::key::{RecordKey, RoundKind, WorkKey};

/// What one step came to. The driver commits `changed` and flushes, then answers, then performs the
/// effects.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The answer to whoever brought the input.
    pub reply: Reply,
    /// What is to be done, in this order, after the commit.
    pub effects: Vec<Effect>,
    /// Records that differ now. [`Engine::record`](crate::Engine::record) gives the bytes, or
    /// `None` for "delete it". Empty means that there is nothing to commit.
    pub changed: Vec<RecordKey>,
}

/// An order to the executor. Safe to repeat: it carries (run, round, attempt), and a result that
/// comes twice or late counts once or not at all.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Aggregate these updates; answer with `Aggregated` or `AggregateFailed` under the same key.
    Aggregate(Box<AggregatePlan>),
    /// These blobs are referenced no more.
    DropBlobs {
        /// The run that held them.
        run: RunId,
        /// What to drop.
        digests: Vec<Digest>,
    },
    /// A line of the run's history, for those who watch. It is also a record, so it needs no other
    /// keeping.
    Announce(v1::RunEvent),
}

/// Everything an aggregation needs, as ids and digests.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregatePlan {
    /// The key under which the result comes back.
    pub work: WorkKey,
    /// Warm-up or training.
    pub kind: RoundKind,
    /// In client-id order; weights sum to 1. Those of a [`Release`] count alike, whatever their
    /// number.
    pub updates: Vec<PlannedUpdate>,
    /// The adapter that the run started from, if any: it may hold the head's start.
    pub start_adapter: Option<Digest>,
    /// Frozen tensors that hold now.
    pub frozen: Option<Digest>,
    /// Published entries that hold now, oldest first (one for methods that replace, all for methods
    /// that accumulate).
    pub published: Vec<Digest>,
    /// The server optimiser's state after the latest of them, when the run has one.
    pub server: Option<Digest>,
    /// In a run with privacy per client: the only thing that may be published of the updates.
    pub release: Option<Release>,
}

/// A noised sum, in place of the mean of updates. There may be no update at all: then it is noise
/// alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// Noise and divisor.
    pub plan: ClientPlan,
    /// L2 clip norm of this round.
    pub clip: f64,
    /// The data set, which names the domain in a ledger.
    pub domain: String,
}

/// One update of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedUpdate {
    /// Who sent it.
    pub client: ClientId,
    /// Its blob.
    pub digest: Digest,
    /// Its share, 0 to 1.
    pub weight: f64,
    /// The rank it was trained with.
    pub rank: u32,
}

/// The answer to one input.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Noted; nothing more to say.
    Done,
    /// What a client is to do next.
    Poll(Box<v1::PollReply>),
    /// Whether the client's work is still wanted.
    Heartbeat {
        /// True: stop it.
        stop: bool,
        /// Why.
        reason: String,
    },
    /// What became of an update.
    Upload(UploadOutcome),
    /// Whether a release may be made. If not, the run has spent its budget and ended.
    Release {
        /// True: it is charged.
        granted: bool,
    },
    /// The run as it is now.
    Run(Box<v1::RunSummary>),
    /// The client as it is now.
    Client(Box<v1::ClientInfo>),
}

/// What became of an update that reached the engine. In every case it is decided: the client drops
/// it from its spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadOutcome {
    /// It counts; the same answer each time it is sent again.
    Accepted,
    /// Durable but not needed: the cohort was full.
    Spare,
    /// Refused for what came with it; the client is dropped from this attempt.
    Refused {
        /// What was expected and what came.
        reason: String,
    },
}
