//! What `rondo ... --json` prints, as far as it is read here.

use serde::{Deserialize, Serialize};

/// A join token.
#[derive(Debug, Deserialize)]
pub(crate) struct Token {
    pub(crate) token: String,
    pub(crate) ca_fingerprint: String,
}

/// Enrolled clients.
#[derive(Debug, Deserialize)]
pub(crate) struct Clients {
    pub(crate) clients: Vec<Client>,
}

/// One enrolled client.
#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) client: String,
    pub(crate) last_seen_ms: i64,
    pub(crate) bases: Vec<String>,
}

/// A run.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    pub(crate) run: String,
    pub(crate) outcome: String,
}

/// What `rondo run show` prints.
#[derive(Debug, Deserialize)]
pub(crate) struct Shown {
    pub(crate) summary: Summary,
}

/// Rounds of a run.
#[derive(Debug, Deserialize)]
pub(crate) struct Rounds {
    pub(crate) rounds: Vec<Round>,
}

/// A closed round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Round {
    /// 0 is the warm-up.
    pub(crate) round: u32,
    pub(crate) kind: String,
    pub(crate) attempt: u32,
    pub(crate) aggregation_error: Option<f64>,
    pub(crate) participants: Vec<Participant>,
    pub(crate) started_at_ms: i64,
    pub(crate) ended_at_ms: i64,
}

/// What one client did in a round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Participant {
    pub(crate) client: String,
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) rank: u32,
    pub(crate) weight: f64,
    pub(crate) examples: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) layout_bytes_up: u64,
    pub(crate) layout_bytes_down: u64,
    /// Not a number, and so absent, in a warm-up.
    pub(crate) train_loss: Option<f64>,
    pub(crate) train_seconds: Option<f64>,
    pub(crate) before: Option<Evaluation>,
    pub(crate) after: Option<Evaluation>,
    /// What the update cost; absent without privacy.
    pub(crate) privacy: Option<Spent>,
}

/// What a run has cost a client's data, by its own ledger.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Spent {
    pub(crate) noise_multiplier: f64,
    pub(crate) sampling_rate: f64,
    pub(crate) total_steps: u32,
    pub(crate) epsilon: f64,
    pub(crate) epsilon_pld: f64,
}

/// A measurement on held-out examples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Evaluation {
    pub(crate) loss: f64,
    pub(crate) accuracy: f64,
    pub(crate) examples: u64,
    /// Tokens that count in the loss; 0 where the loss is per example.
    pub(crate) tokens: u64,
    pub(crate) groups: Vec<GroupEvaluation>,
}

/// The part of a measurement that one group of examples makes up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GroupEvaluation {
    pub(crate) group: String,
    pub(crate) loss: f64,
    pub(crate) accuracy: f64,
    pub(crate) examples: u64,
    pub(crate) tokens: u64,
}
