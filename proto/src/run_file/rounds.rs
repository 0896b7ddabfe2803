//! `[rounds]`, `[server]` and `[evaluation]`: the rules of the coordinator.

use serde::{Deserialize, Serialize};

/// Round policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rounds {
    /// Training rounds.
    pub count: u32,
    /// Clients selected per round.
    pub cohort: u32,
    /// Fewest accepted updates that make a round valid.
    pub quorum: u32,
    /// Further clients selected as spares; the first `cohort` updates count.
    #[serde(default)]
    pub over_select: u32,
    /// Seconds from the start of a phase until the round continues with what it has.
    #[serde(default = "default_deadline_s")]
    pub deadline_s: u64,
    /// Seconds to wait for the others once quorum is reached.
    #[serde(default = "default_grace_s")]
    pub grace_s: u64,
    /// Evaluate the published adapter every so many rounds; the last one always is. 0 = never.
    #[serde(default = "default_eval_every")]
    pub eval_every: u32,
    /// How updates weigh; absent = by examples, and with `[privacy]`, which keeps example counts at
    /// home, all alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weighting: Option<Weighting>,
    /// Largest L2 norm of an update that is accepted; absent = any finite one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_update_norm: Option<f64>,
    /// Failed attempts at one round before the run ends as failed.
    #[serde(default = "default_max_attempts")]
    pub max_attempts: u32,
    /// Which round's adapter the finished run hands out.
    #[serde(default)]
    pub keep: Keep,
    /// A round whose held-out loss lies above the best so far by more than this share of it is
    /// taken back: the next one starts from the best. Absent = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<f64>,
}

fn default_deadline_s() -> u64 {
    600
}
fn default_grace_s() -> u64 {
    30
}
fn default_eval_every() -> u32 {
    1
}
fn default_max_attempts() -> u32 {
    3
}

/// How updates weigh in the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// By example count.
    #[default]
    Examples,
    /// All alike.
    Uniform,
}

/// Which round's adapter a finished run hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The last one's.
    #[default]
    Last,
    /// That of the round with the lowest held-out loss.
    Best,
}

/// What the coordinator does with the mean of the updates before it publishes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// The optimiser.
    pub optimiser: ServerOptimiser,
    /// Its step size eta.
    #[serde(default = "default_server_lr")]
    pub lr: f64,
    /// Decay of the first moment.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay of the second moment; of FedAdam and FedYogi.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// Adaptivity tau, added to the root of the second moment; of FedAdam and FedYogi.
    #[serde(default = "default_tau")]
    pub tau: f64,
}

fn default_server_lr() -> f64 {
    1.0
}
fn default_beta1() -> f64 {
    0.9
}
fn default_beta2() -> f64 {
    0.99
}
fn default_tau() -> f64 {
    1e-3
}

/// Server optimisers (Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2; Hsu et
/// al. 2019). The mean update Delta = mean - global is their negative gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerOptimiser {
    /// m <- beta1 m + Delta; x <- x + lr m.
    FedAvgM,
    /// Adam over Delta, without bias correction.
    FedAdam,
    /// As FedAdam with Yogi's second moment.
    FedYogi,
}

/// Measuring on one client's data instead of everybody's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationChoice {
    /// The client that measures.
    pub client: String,
    /// Its data set, for example a public one; the whole of it counts as held out.
    pub dataset: String,
    /// No person's privacy depends on the data set, so a run with `[privacy]` may report what is
    /// measured on it.
    #[serde(default)]
    pub public: bool,
}
