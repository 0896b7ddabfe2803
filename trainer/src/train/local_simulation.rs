//! A run of one client without a coordinator: the same job, the same files, the same laws, in a
//! temporary folder.

use std::path::PathBuf;

use rondo_methods::{AdapterState, AggregateInput, Contribution, Instance, Job, Kind, MethodError, TensorSet};
use tempfile::TempDir;

/// The one client's name, part of the key of everything that is drawn for it.
pub const CLIENT: &str = "solo";

/// What a coordinator keeps of such a run.
#[derive(Debug)]
pub struct LocalSimulation {
    dir: TempDir,
    job: Job,
    frozen: Option<PathBuf>,
    published: Vec<PathBuf>,
    server_state: Option<PathBuf>,
}

impl LocalSimulation {
    /// A run of which nothing is published yet.
    ///
    /// # Errors
    /// The temporary folder cannot be made.
    pub fn new(job: Job) -> Result<Self, MethodError> {
        let dir = tempfile::tempdir().map_err(|source| MethodError::Io { path: std::env::temp_dir(), source })?;
        Ok(Self { dir, job, frozen: None, published: Vec::new(), server_state: None })
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The adapter from which the client works in `round`; of a run whose warm-up is due, the
    /// probe's start.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn state(&self, round: u32) -> Result<AdapterState, MethodError> {
        if round == 0 {
            return self.job.warm_up_state(self.job.rank());
        }
        self.job.state(round, CLIENT, self.job.rank(), self.frozen.as_deref(), &self.published)
    }

    /// Aggregates the one update of `round` (0 = the warm-up) and publishes the result.
    ///
    /// # Errors
    /// The update cannot be written or aggregated.
    pub fn publish(&mut self, round: u32, tensors: &TensorSet) -> Result<(), MethodError> {
        let kind = if round == 0 { Kind::WarmUp } else { Kind::Train };
        let out_dir = self.dir.path().join(round.to_string());
        std::fs::create_dir_all(&out_dir).map_err(|source| MethodError::Io { path: out_dir.clone(), source })?;
        let path = out_dir.join("update.safetensors");
        let rank = self.job.rank();
        let instance = Instance::in_round(round).with_rank(rank).of_client(CLIENT);
        self.job.write_update(kind, instance, tensors, &path)?;
        let output = self.job.aggregate(AggregateInput {
            kind,
            round,
            updates: vec![Contribution { client: CLIENT.to_owned(), weight: 1.0, rank, path }],
            frozen: self.frozen.clone(),
            published: self.published.clone(),
            server: self.job.server(),
            server_state: self.server_state.clone(),
            out_dir: &out_dir,
            progress: &|_, _| {},
        })?;
        self.published.push(output.global);
        self.frozen = output.frozen.or(self.frozen.take());
        self.server_state = output.server_state.or(self.server_state.take());
        Ok(())
    }
}
