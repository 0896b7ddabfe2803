//! Why the engine says no.

use rondo_methods::MethodError;
use rondo_proto::error::ErrorCode;
use rondo_proto::run_file::RunFileError;
use rondo_proto::{ClientId, Digest, RunId};

/// Why an input was not taken. The state is as it was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// No such run.
    #[error("there is no run `{run}`")]
    UnknownRun {
        /// The id asked for.
        run: RunId,
    },
    /// No such client.
    #[error("there is no client `{client}`")]
    UnknownClient {
        /// The name asked for.
        client: ClientId,
    },
    /// The run file names a client for evaluations that is not enrolled.
    #[error("run file: `evaluation.client` names `{client}`, but no client of that name is enrolled")]
    UnknownEvaluator {
        /// The name.
        client: ClientId,
    },
    /// The adapter to start from does not fit the run.
    #[error("the adapter to start from does not fit this run: {problem}")]
    StartAdapter {
        /// What does not fit.
        problem: String,
    },
    /// The run id is taken.
    #[error("run `{run}` exists already")]
    RunExists {
        /// The id.
        run: RunId,
    },
    /// The client name is taken.
    #[error("client `{client}` is enrolled already")]
    ClientExists {
        /// The name.
        client: ClientId,
    },
    /// The run file does not parse or asks for something impossible.
    #[error(transparent)]
    RunFile(#[from] RunFileError),
    /// The method refuses the run file on this base.
    #[error("{0}")]
    Method(MethodRefusal),
    /// The run asks for a guarantee that cannot be given.
    #[error("{0}")]
    Privacy(#[from] rondo_dp::PrivacyError),
    /// The method would begin with a statistic of the clients' data.
    #[error("method `{method}` would begin with a statistic of the clients' data, which [privacy] does not cover")]
    PrivateWarmUp {
        /// The method.
        method: String,
    },
    /// The run would pay for a warm-up that reads no data.
    #[error(
        "privacy.warm_up_clip is set, and the run's method `{method}` begins with no statistic of the clients' data"
    )]
    NoPaidWarmUp {
        /// The method.
        method: String,
    },
    /// No noise covers the method's warm-up.
    #[error("privacy.warm_up_clip cannot cover the warm-up of method `{method}`: {why}")]
    UnpayableWarmUp {
        /// The method.
        method: String,
        /// What stands in the way.
        why: &'static str,
    },
    /// The method cannot hide a client in a sum.
    #[error("method `{method}` cannot keep privacy per client at the coordinator: {why}")]
    NotCentral {
        /// The method.
        method: String,
        /// Its own reason.
        why: String,
    },
    /// No noise keeps a guarantee per client.
    #[error("{0}")]
    ClientPlan(#[from] rondo_dp::ClientPlanError),
    /// The run is over.
    #[error("run `{run}` has ended: {outcome}")]
    RunEnded {
        /// The run.
        run: RunId,
        /// How it ended.
        outcome: String,
    },
    /// The client may not do this in its present state.
    #[error("client `{client}` is {state}")]
    ClientState {
        /// The client.
        client: ClientId,
        /// "pending", "draining" or "revoked".
        state: &'static str,
    },
    /// A client offers more than a record can hold.
    #[error("client `{client}` offers {count} data sets or base models, but at most {limit} are kept")]
    Offers {
        /// The client.
        client: ClientId,
        /// How many came.
        count: usize,
        /// How many are kept.
        limit: usize,
    },
    /// The client lacks what the run needs.
    #[error("client `{client}` does not offer {what}, which run `{run}` needs")]
    NotOffered {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// The data set or base model.
        what: String,
    },
    /// A rank the run cannot use.
    #[error("client `{client}` cannot take part in run `{run}`: {problem}")]
    Rank {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// The rank that was asked for, and what is allowed.
        problem: String,
    },
    /// About a round or attempt that is not open.
    #[error(
        "run `{run}` is in round {round} attempt {attempt} ({phase}), but this is about round {got_round} attempt {got_attempt}"
    )]
    WrongRound {
        /// The run.
        run: RunId,
        /// The open round.
        round: u32,
        /// The open attempt.
        attempt: u32,
        /// The phase.
        phase: &'static str,
        /// The round that came.
        got_round: u32,
        /// The attempt that came.
        got_attempt: u32,
    },
    /// The client is not in the cohort.
    #[error("client `{client}` was not selected for round {round} of run `{run}`")]
    NotSelected {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// The round.
        round: u32,
    },
    /// The client was dropped from the cohort.
    #[error("client `{client}` was dropped from round {round} of run `{run}`: {reason}")]
    Dropped {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// The round.
        round: u32,
        /// Why.
        reason: String,
    },
    /// A second, different update from the same client in the same attempt.
    #[error("client `{client}` already sent update {first} for round {round} of run `{run}`, and now {second}")]
    AnotherUpdate {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// The round.
        round: u32,
        /// The update that was taken.
        first: Digest,
        /// The update that came now.
        second: Digest,
    },
    /// Trained on another version of the base plus published stacks.
    #[error(
        "client `{client}` trained round {round} of run `{run}` on version {got} of the base, but version {expected} is needed"
    )]
    BaseVersion {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// The round.
        round: u32,
        /// The version of this round.
        expected: u32,
        /// The version of the update.
        got: u32,
    },
    /// Trained with another rank than agreed.
    #[error("client `{client}` trained run `{run}` with rank {got}, but agreed to rank {expected}")]
    UpdateRank {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// The agreed rank.
        expected: u32,
        /// The rank that came.
        got: u32,
    },
    /// No evaluation is expected from the client.
    #[error("no evaluation of round {round} of run `{run}` is expected from client `{client}`")]
    NoEvaluation {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// The round.
        round: u32,
    },
}

/// A method's refusal, kept as text so that rejections stay comparable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodRefusal(pub String);

impl std::fmt::Display for MethodRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<MethodError> for Rejection {
    fn from(error: MethodError) -> Self {
        Self::Method(MethodRefusal(error.to_string()))
    }
}

impl Rejection {
    /// The kind of error, for the table from errors to statuses.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownRun { .. } | Self::UnknownClient { .. } | Self::UnknownEvaluator { .. } => ErrorCode::NotFound,
            Self::RunExists { .. } | Self::ClientExists { .. } => ErrorCode::AlreadyExists,
            Self::RunFile(_)
            | Self::Method(_)
            | Self::StartAdapter { .. }
            | Self::PrivateWarmUp { .. }
            | Self::NoPaidWarmUp { .. }
            | Self::UnpayableWarmUp { .. }
            | Self::NotCentral { .. }
            | Self::ClientPlan(_)
            | Self::Privacy(_)
            | Self::Rank { .. }
            | Self::Offers { .. } => ErrorCode::InvalidArgument,
            Self::ClientState { .. } | Self::NotSelected { .. } => ErrorCode::PermissionDenied,
            Self::AnotherUpdate { .. } => ErrorCode::AlreadyExists,
            Self::RunEnded { .. }
            | Self::NotOffered { .. }
            | Self::WrongRound { .. }
            | Self::Dropped { .. }
            | Self::BaseVersion { .. }
            | Self::UpdateRank { .. }
            | Self::NoEvaluation { .. } => ErrorCode::FailedPrecondition,
        }
    }

    /// How to fix it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::UnknownRun { .. } => "`rondo run list` shows the runs there are",
            Self::UnknownClient { .. } => "`rondo client list` shows the clients there are",
            Self::UnknownEvaluator { .. } => {
                "enrol it first, or correct the name; `rondo client list` shows the clients there are"
            }
            Self::StartAdapter { .. } => {
                "`rondo adapter inspect` shows what it changes, `rondo base show` what the base has"
            }
            Self::ClientExists { .. } => "choose another name, or revoke the client first",
            Self::NotCentral { .. } => {
                "use unit = \"example\", where every client adds its own noise, or a method whose updates are averaged: \
                 `rondo method list` shows them"
            }
            Self::ClientPlan(rondo_dp::ClientPlanError::FirstRound { .. }) => {
                "leave privacy.noise_multiplier out, so that it is chosen, or allow more epsilon"
            }
            Self::PrivateWarmUp { .. } => {
                "set privacy.warm_up_clip, so that the warm-up is clipped, noised and paid for, or set \
                 method.init = \"base-svd\", which reads the base model alone"
            }
            Self::NoPaidWarmUp { .. } => "leave privacy.warm_up_clip out",
            Self::ClientState { state: "pending", .. } => "an operator must run `rondo client approve` first",
            Self::NotOffered { .. } => "add the data set or the model folder to the client's client.toml",
            Self::RunEnded { .. } => "an ended run stays ended; `rondo run create` makes another from the same file",
            Self::WrongRound { .. } | Self::Dropped { .. } | Self::NotSelected { .. } => "drop the work and poll again",
            Self::ClientState { state: "revoked", .. } => {
                "a revoked client stays out; enrol it again under another name"
            }
            Self::AnotherUpdate { .. } => "the first update stands; drop the second",
            Self::BaseVersion { .. } => "fetch and merge every published entry of the assignment, then train again",
            Self::UpdateRank { .. } => "train with the rank of the assignment",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
