//! What an aggregation made, on the disk and under its digests.

use std::path::PathBuf;

use rondo_methods::AggregateOutput;
use rondo_proto::Digest;

use super::Failure;

/// A file that an aggregation made.
pub(super) struct MadeFile {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

impl MadeFile {
    async fn of(path: PathBuf) -> Result<Self, Failure> {
        let failed = |source| Failure::File { action: "read", path: path.clone(), source };
        let file = path.clone();
        let digest = tokio::task::spawn_blocking(move || Digest::of_file(&file)).await?.map_err(failed)?;
        let bytes = tokio::fs::metadata(&path).await.map_err(failed)?.len();
        Ok(Self { path, digest, bytes })
    }

    async fn of_any(path: Option<PathBuf>) -> Result<Option<Self>, Failure> {
        match path {
            Some(path) => Self::of(path).await.map(Some),
            None => Ok(None),
        }
    }
}

/// What an aggregation made, as files with their digests.
pub(super) struct Made {
    pub(super) global: MadeFile,
    pub(super) frozen: Option<MadeFile>,
    pub(super) server: Option<MadeFile>,
    pub(super) error: Option<f64>,
    /// The clip of a private run's next round, where it moves.
    pub(super) next_clip: Option<f64>,
    /// Head of the ledger that has its release; empty without one.
    pub(super) ledger_head: String,
    pub(super) notes: Vec<String>,
}

impl Made {
    pub(super) async fn of(output: AggregateOutput) -> Result<Self, Failure> {
        let AggregateOutput { global, frozen, server_state, error, notes } = output;
        let (global, frozen) = (MadeFile::of(global).await?, MadeFile::of_any(frozen).await?);
        let server = MadeFile::of_any(server_state).await?;
        Ok(Self { global, frozen, server, error, next_clip: None, ledger_head: String::new(), notes })
    }
}
