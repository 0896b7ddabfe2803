//! The files that an aggregation made, with their digests.

use std::path::PathBuf;

use rondo_methods::AggregateOutput;
use rondo_proto::Digest;

use super::error::AggregationError;

/// A file that an aggregation made.
pub(super) struct AggregateFile {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

impl AggregateFile {
    async fn of(path: PathBuf) -> Result<Self, AggregationError> {
        let failed = |source| AggregationError::File { action: "read", path: path.clone(), source };
        let file = path.clone();
        let digest = tokio::task::spawn_blocking(move || Digest::of_file(&file)).await?.map_err(failed)?;
        let bytes = tokio::fs::metadata(&path).await.map_err(failed)?.len();
        Ok(Self { path, digest, bytes })
    }

    async fn of_optional(path: Option<PathBuf>) -> Result<Option<Self>, AggregationError> {
        match path {
            Some(path) => Self::of(path).await.map(Some),
            None => Ok(None),
        }
    }
}

/// The files that an aggregation made, and what else it found.
pub(super) struct AggregateFiles {
    pub(super) global: AggregateFile,
    pub(super) frozen: Option<AggregateFile>,
    pub(super) server: Option<AggregateFile>,
    pub(super) error: Option<f64>,
    /// The clip of a private run's next round, where it moves.
    pub(super) next_clip: Option<f64>,
    /// Head of the ledger that has its release; empty without one.
    pub(super) ledger_head: String,
    pub(super) notes: Vec<String>,
}

impl AggregateFiles {
    pub(super) async fn of(output: AggregateOutput) -> Result<Self, AggregationError> {
        let AggregateOutput { global, frozen, server_state, error, notes } = output;
        let global = AggregateFile::of(global).await?;
        let frozen = AggregateFile::of_optional(frozen).await?;
        let server = AggregateFile::of_optional(server_state).await?;
        Ok(Self { global, frozen, server, error, next_clip: None, ledger_head: String::new(), notes })
    }
}
