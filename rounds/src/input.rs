//! What happens outside the engine: the inputs it takes.

use rondo_proto::{ClientId, Digest, RunId, v1};

use crate::key::{CohortKey, Millis, WorkKey};

/// One thing that happened. Every input may arrive twice; the second time changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An operator asks for a run. Answered with [`Reply::Run`](crate::Reply::Run).
    CreateRun {
        /// A new id; an id that is taken is rejected.
        run: RunId,
        /// The run file's text, TOML.
        run_file: String,
        /// The registered base model that the run file names.
        base: v1::BaseModel,
        /// The adapter that the run starts from, if any: checked against the base, its blob durable
        /// under the run's id.
        ///
        /// When this is rejected, the driver drops the blob unless
        /// [`Engine::references`](crate::Engine::references) it.
        start_adapter: Option<Box<v1::InitialAdapter>>,
        /// Fresh randomness; kept where cohorts are Poisson-sampled.
        key: CohortKey,
    },
    /// An operator pauses a run: it assigns no new work and its deadlines do not run. It accepts
    /// the work that is assigned.
    Pause {
        /// The run.
        run: RunId,
    },
    /// An operator lets a paused run go on.
    Resume {
        /// The run.
        run: RunId,
    },
    /// An operator ends a run for good.
    Cancel {
        /// The run.
        run: RunId,
    },
    /// A new client has its certificate. A name that was revoked may enrol again; any other known
    /// name is rejected.
    Enrolled {
        /// The name the certificate carries.
        client: ClientId,
        /// SHA-256 of the certificate, hex.
        fingerprint: String,
        /// End of the certificate's validity.
        expires: Millis,
        /// False while an operator must still approve.
        approved: bool,
    },
    /// A known client has a new certificate.
    Renewed {
        /// The client.
        client: ClientId,
        /// SHA-256 of the certificate, hex.
        fingerprint: String,
        /// End of the certificate's validity.
        expires: Millis,
    },
    /// An operator lets a pending client work, or takes back a drain.
    Approve {
        /// The client.
        client: ClientId,
    },
    /// An operator asks that a client finish its work and get no more.
    Drain {
        /// The client.
        client: ClientId,
    },
    /// An operator shuts a client out at once.
    Revoke {
        /// The client.
        client: ClientId,
    },
    /// A client says what it has and asks what to do. Answered with
    /// [`Reply::Poll`](crate::Reply::Poll).
    Poll {
        /// The client.
        client: ClientId,
        /// Data sets it can map to files of its own.
        datasets: Vec<String>,
        /// Digests of base models it holds.
        bases: Vec<String>,
        /// What makes tokens in them; an old client says nothing of it.
        tokens: Vec<v1::BaseTokens>,
        /// Largest rank it accepts; 0 = no limit.
        max_rank: u32,
        /// Its program version.
        version: String,
    },
    /// A client accepts or declines a run.
    Answer {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// Whether it takes part.
        accept: bool,
        /// Why not, when it declines.
        reason: String,
        /// The rank it trains with; 0 takes the run's, or the client's limit where the method can
        /// mix ranks.
        rank: u32,
    },
    /// A person at the client's site has yet to decide on a run. The client is asked again soon.
    Undecided {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// What is waited for.
        reason: String,
    },
    /// Progress of assigned work. Answered with [`Reply::Heartbeat`](crate::Reply::Heartbeat);
    /// never rejected for being late: the reply says to stop.
    Heartbeat {
        /// The client.
        client: ClientId,
        /// The work.
        work: WorkKey,
        /// "training", "uploading", "evaluating", "warm-up".
        state: String,
        /// Steps done.
        step: u32,
        /// Steps in all.
        steps: u32,
        /// Training loss of the latest step.
        loss: f64,
    },
    /// An upload starts or resumes. Rejected when no update is wanted from this client, so that the
    /// coordinator can refuse before it receives anything.
    UploadBegun {
        /// The client.
        client: ClientId,
        /// The work.
        work: WorkKey,
        /// Digest of what is uploaded.
        digest: Digest,
    },
    /// An update passed validation and its blob is durable. Answered with
    /// [`Reply::Upload`](crate::Reply::Upload).
    ///
    /// When this is rejected, the driver drops the blob unless
    /// [`Engine::references`](crate::Engine::references) it.
    UpdateStored {
        /// The client.
        client: ClientId,
        /// The work.
        work: WorkKey,
        /// What came with it.
        update: StoredUpdate,
    },
    /// Validation refused an update for what is in it. The client is dropped from this attempt.
    UpdateRefused {
        /// The client.
        client: ClientId,
        /// The work.
        work: WorkKey,
        /// What was expected and what came.
        reason: String,
    },
    /// A client cannot do its assignment (training or evaluation). It is dropped from this attempt.
    ClientFailed {
        /// The client.
        client: ClientId,
        /// The work.
        work: WorkKey,
        /// Why.
        reason: String,
    },
    /// Bytes of a blob went to a client. Give this before the last chunk is handed to the wire, so
    /// that it comes before whatever the client does with the blob; give it too when a download
    /// breaks off.
    Delivered {
        /// The client.
        client: ClientId,
        /// The run for which it was fetched.
        run: RunId,
        /// The blob.
        digest: Digest,
        /// gRPC message bytes, framing included.
        bytes: u64,
    },
    /// A client measured the published adapter.
    Evaluated {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// The round whose adapter was measured.
        round: u32,
        /// The result.
        evaluation: v1::Evaluation,
        /// Fewest rows of a group, by the site's choice; 0 where it knows none.
        min_group: u32,
    },
    /// A client's site withholds its measurements, so there is none of the published adapter.
    Withheld {
        /// The client.
        client: ClientId,
        /// The work.
        work: WorkKey,
    },
    /// The executor is about to draw the noise of a plan's [`Release`](crate::Release). Answered
    /// with [`Reply::Release`](crate::Reply::Release); no noise may be drawn before. Unlike other
    /// inputs it counts each time it comes, since each time means new noise.
    Releasing {
        /// The (run, round, attempt) of the plan.
        work: WorkKey,
    },
    /// An aggregation is done and its blobs are durable.
    Aggregated {
        /// The (run, round, attempt) of the [`AggregatePlan`](crate::AggregatePlan).
        work: WorkKey,
        /// The new global adapter.
        global: Digest,
        /// Its size in bytes.
        global_bytes: u64,
        /// New frozen tensors, when the method made any.
        frozen: Option<Digest>,
        /// Size of the new frozen tensors in bytes; 0 when there are none.
        frozen_bytes: u64,
        /// The server optimiser's new state, when the run has one.
        server: Option<Digest>,
        /// Relative error of the aggregate, ||aggregate - dense weighted mean||_F / ||dense
        /// weighted mean||_F; absent where the mean is private.
        error: Option<f64>,
        /// The clip of the next round, where it changes.
        next_clip: Option<f64>,
        /// Head of the coordinator's privacy ledger right after the release was entered; empty
        /// where nothing was released.
        ledger_head: String,
        /// Remarks for the round record.
        notes: Vec<String>,
    },
    /// An aggregation failed. The attempt is over.
    AggregateFailed {
        /// The (run, round, attempt) of the plan.
        work: WorkKey,
        /// Why.
        reason: String,
    },
    /// Time has passed.
    Tick,
}

/// What is known of an update that passed validation.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredUpdate {
    /// Digest of the file.
    pub digest: Digest,
    /// Training examples behind it.
    pub examples: u64,
    /// Rank it was trained with.
    pub rank: u32,
    /// Number of published entries that were merged before training. Checked for methods whose
    /// publications accumulate, where training on another version would mean another base.
    pub base_version: u32,
    /// Mean training loss.
    pub train_loss: f64,
    /// Seconds of training.
    pub train_seconds: f64,
    /// L2 norm over all its tensors.
    pub norm: f64,
    /// gRPC message bytes of the upload, framing included.
    pub bytes_up: u64,
    /// The model as received, measured before training.
    pub before: Option<v1::Evaluation>,
    /// Fewest rows of a group in `before`, by the site's choice; 0 where it knows none.
    pub min_group: u32,
    /// The site withholds its measurements: `train_loss` is 0, and `before` is absent.
    pub metrics_withheld: bool,
    /// What it cost its client's data, by the client's own ledger.
    pub privacy: Option<v1::PrivacyReport>,
}

/// What a client says of itself.
pub(crate) struct Offers {
    pub(crate) datasets: Vec<String>,
    pub(crate) bases: Vec<String>,
    pub(crate) tokens: Vec<v1::BaseTokens>,
    pub(crate) max_rank: u32,
    pub(crate) version: String,
}
