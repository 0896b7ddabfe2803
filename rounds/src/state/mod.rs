//! What the engine knows: ids, digests and numbers, in ordered maps. Everything here is a record of
//! the store; what may be lost at a restart is in `liveness.rs`.

use std::collections::{BTreeMap, BTreeSet};

use rondo_dp::Privacy;
use rondo_proto::base_tokens::makes_other_tokens;
use rondo_proto::{ClientId, Digest, RunId, v1};
use serde::{Deserialize, Serialize};

use crate::key::{Millis, RoundKind};
use crate::policy::Policy;
use crate::state::central::{Central, Charged};
use crate::state::participation::Participation;
use crate::state::phase::Phase;
use crate::state::publication::ClosedRound;
use crate::state::start_adapter::StartAdapter;

pub mod central;
pub mod participation;
pub mod phase;
pub mod publication;
pub mod start_adapter;

mod lineage;
mod queries;
mod releases;

/// All that is durable.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// Enrolled clients.
    pub clients: BTreeMap<ClientId, Client>,
    /// Runs, ended ones too.
    pub runs: BTreeMap<RunId, Run>,
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientStatus {
    /// Waits for an operator.
    Pending,
    /// Works.
    Active,
    /// Finishes its work and gets no more.
    Draining,
    /// Shut out.
    Revoked,
}

impl ClientStatus {
    /// As client lists spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Revoked => "revoked",
        }
    }
}

/// An enrolled client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// What it may do.
    #[serde(rename = "standing")]
    pub status: ClientStatus,
    /// When it got its first certificate.
    pub enrolled_at: Millis,
    /// When it was last heard of, to the minute.
    pub seen_at: Millis,
    /// Data sets it offers.
    pub datasets: BTreeSet<String>,
    /// Digests of base models it holds.
    pub bases: BTreeSet<String>,
    /// What makes tokens in them: digest of the base, and its `token_digest`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tokens: BTreeSet<(String, String)>,
    /// Largest rank it accepts; 0 = no limit.
    pub max_rank: u32,
    /// Its program version.
    pub version: String,
    /// SHA-256 of its certificate, hex.
    pub fingerprint: String,
    /// End of the certificate's validity.
    pub expires: Millis,
}

impl Client {
    /// What makes tokens in its base models, as messages say it.
    pub(crate) fn base_tokens(&self) -> Vec<v1::BaseTokens> {
        let tokens = |(base, token_digest): &(String, String)| v1::BaseTokens {
            base: base.clone(),
            token_digest: token_digest.clone(),
        };
        self.tokens.iter().map(tokens).collect()
    }

    /// Whether it has the base with other tokens only.
    pub(crate) fn makes_other_tokens(&self, base: &v1::BaseModel) -> bool {
        makes_other_tokens(base, &self.base_tokens())
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What it is; written once.
    pub spec: Spec,
    /// Where it is.
    pub live: Live,
    /// Clients that answered or took part.
    pub members: BTreeMap<ClientId, Member>,
    /// Closed rounds; written once each.
    pub rounds: BTreeMap<u32, ClosedRound>,
    /// The latest lines of its history.
    pub events: BTreeMap<u64, v1::RunEvent>,
}

/// What a run is. The other fields are read from the run file, so that an old run can be shown
/// by a program that reads run files differently or lacks the method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The run file's text.
    pub run_file: String,
    /// The base model.
    pub base: v1::BaseModel,
    /// When the run was created.
    pub created_at: Millis,
    /// Its short name.
    pub name: String,
    /// The data set its clients map.
    pub dataset: String,
    /// The method's id.
    pub method: String,
    /// In words: whether the aggregate is exactly the mean of the clients' changes.
    pub exactness: String,
    /// The adapter rank.
    pub rank: u32,
    /// Seed of the draws.
    pub seed: u64,
    /// The privacy guarantee.
    pub privacy: Privacy,
    /// How rounds are held.
    pub policy: Policy,
    /// Whether every published entry stays part of the adapter, or the latest replaces those
    /// before.
    pub accumulates: bool,
    /// Largest L2 norm of an update.
    pub max_update_norm: Option<f64>,
    /// The one client that measures; absent = every participant, on its own held-out data.
    #[serde(default)]
    pub evaluator: Option<Evaluator>,
    /// The adapter that it starts from; absent = the base alone.
    #[serde(default, rename = "initial")]
    pub start_adapter: Option<StartAdapter>,
    /// How a guarantee per client is kept.
    #[serde(default)]
    pub central: Option<Central>,
}

impl Spec {
    /// Digest of the adapter that it starts from, as messages spell it; empty without one.
    pub(crate) fn start_adapter_digest(&self) -> String {
        self.start_adapter.as_ref().map(|adapter| adapter.digest.to_string()).unwrap_or_default()
    }
}

/// A client that measures for a run, whether or not it trains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluator {
    /// The client.
    pub client: ClientId,
    /// Its data set; the whole of it counts as held out.
    pub dataset: String,
}

/// What changes while a run goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// The phase of the open round.
    pub phase: Phase,
    /// When it was paused, if it is.
    pub paused_at: Option<Millis>,
    /// The open round; the last one when the run has ended.
    pub open: OpenRound,
    /// Number of the next event, from 1.
    pub next_event: u64,
    /// What its releases have cost every client, in a run with privacy per client.
    #[serde(default)]
    pub charged: Option<Charged>,
    /// What the next release clips to, in a run whose clip moves, once it has moved.
    #[serde(default)]
    pub clip: Option<f64>,
}

/// The open round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenRound {
    /// Its number; 0 is the warm-up.
    pub round: u32,
    /// Its kind.
    pub kind: RoundKind,
    /// The attempt, from 1.
    pub attempt: u32,
    /// When its first cohort was drawn.
    pub started_at: Option<Millis>,
    /// Remarks for the record.
    pub notes: Vec<String>,
    /// Somebody measured a loss of the published adapter that is no finite number.
    #[serde(default)]
    pub diverged: bool,
}

impl OpenRound {
    /// A round that begins.
    pub(crate) fn new(round: u32, kind: RoundKind) -> Self {
        Self { round, kind, attempt: 1, started_at: None, notes: Vec::new(), diverged: false }
    }
}

/// What one client answered and does in one run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Member {
    /// Its answer to the invitation.
    pub answer: Option<Answer>,
    /// What it does in the open round.
    #[serde(rename = "part")]
    pub participation: Option<Participation>,
    /// The round in which it last failed; others are drawn before it in the next attempt.
    pub failed_in: Option<u32>,
    /// What the run has cost its data, as of its latest accepted update.
    #[serde(default)]
    pub privacy: Option<v1::PrivacyReport>,
    /// It reported fewer noised steps than before: its ledger was set back, so nobody knows what
    /// the run has cost its data. It is drawn no more.
    #[serde(default)]
    pub set_back: bool,
    /// Blobs that it was asked to fetch and that are still in force.
    pub fetches: BTreeMap<Digest, Fetch>,
}

/// A client's answer to an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it takes part.
    pub accepted: bool,
    /// The rank it trains with; 0 when it declined.
    pub rank: u32,
    /// Why it declined.
    pub reason: String,
    /// True when the engine declined for it (a limit it declared, a revocation); it is asked again
    /// when that is no longer so.
    pub by_engine: bool,
    /// A person at the client's site has yet to decide; it is asked again soon.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undecided: bool,
    /// When it was given. A client that declined is asked again after a while.
    pub at: Millis,
}

impl Answer {
    /// Whether both say the same, whatever their times.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        Self { at: other.at, ..self.clone() } == *other
    }
}

/// A download that was assigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The round in which it was first assigned, where its bytes are counted.
    pub round: u32,
    /// Its size in bytes by the layout's formula.
    pub layout_bytes: u64,
    /// Whether any of it was delivered.
    pub delivered: bool,
    /// Whether it was assigned to the one client that measures, to measure: then its bytes count
    /// there.
    #[serde(default)]
    pub measuring: bool,
}
