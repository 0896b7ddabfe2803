//! What an aggregation takes and what it makes.

use std::path::{Path, PathBuf};

use rondo_proto::run_file::Server;

use crate::job::Kind;

/// One client's accepted update.
#[derive(Debug, Clone, PartialEq)]
pub struct Contribution {
    /// The client.
    pub client: String,
    /// Its share; all shares sum to 1 (see [`crate::law::shares`]).
    pub weight: f64,
    /// The rank it trained with.
    pub rank: usize,
    /// Its update file, which has passed validation.
    pub path: PathBuf,
}

/// What to aggregate, and where to.
pub struct AggregateInput<'a> {
    /// Statistic or training update.
    pub kind: Kind,
    /// The round, counted from 1; 0 is the warm-up.
    pub round: u32,
    /// The updates; they are taken in client-id order, whatever their order here.
    pub updates: Vec<Contribution>,
    /// The frozen artefact in force, if any.
    pub frozen: Option<PathBuf>,
    /// Every file published before; their count is the version of the base that clients trained on.
    pub published: Vec<PathBuf>,
    /// The run's server optimiser ([`crate::Job::server`]), if it has one: what is published is
    /// then its step towards the mean.
    pub server: Option<&'a Server>,
    /// The optimiser's state after the round before; absent before the first.
    pub server_state: Option<PathBuf>,
    /// Existing folder for the files to be made.
    pub out_dir: &'a Path,
    /// Called with (done, total) pieces of work.
    pub progress: &'a dyn Fn(usize, usize),
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregateOutput {
    /// The published file.
    pub global: PathBuf,
    /// A new frozen artefact, when this round made one.
    pub frozen: Option<PathBuf>,
    /// The server optimiser's state after this round, for the next one; of a training round with an
    /// optimiser.
    pub server_state: Option<PathBuf>,
    /// ||aggregate - dense weighted mean|| / ||dense weighted mean|| over all targets, before a
    /// server optimiser's step; none for a warm-up.
    pub error: Option<f64>,
    /// Notes for the round record.
    pub notes: Vec<String>,
}
