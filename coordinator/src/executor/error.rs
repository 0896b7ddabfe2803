//! Why an aggregation came to nothing.

use std::path::PathBuf;

use rondo_dp::LedgerError;
use rondo_methods::MethodError;
use rondo_proto::files::is_full;

use crate::dp_release::DpReleaseError;
use crate::driver::DriverError;
use crate::store::blobs::BlobError;

/// Why an aggregation came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum AggregationError {
    #[error(transparent)]
    Method(#[from] MethodError),
    #[error(transparent)]
    Release(#[from] DpReleaseError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("cannot {action} {path}: {source}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the aggregation stopped abruptly: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("the run has ended")]
    Ended,
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl AggregationError {
    /// Whether a later try may succeed: the disk is full or the store cannot be written. The
    /// updates are not thrown away for it.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Driver(DriverError::Store(_))) || is_full(self)
    }
}
