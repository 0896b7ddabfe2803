//! Why an upload was not accepted, and the status that its sender gets.

use std::io;
use std::path::{Path, PathBuf};

use rondo_methods::{MethodError, UpdateRefusal};
use rondo_proto::Digest;
use rondo_proto::digest::InvalidDigest;
use rondo_proto::error::ErrorCode;
use rondo_proto::files::is_full;
use rondo_proto::ids::InvalidId;
use rondo_wire::status::status;
use tonic::Status;

use crate::driver::DriverError;
use crate::store::blobs::BlobError;

/// Why an upload was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The messages are not a header followed by data.
    #[error("upload: {0}")]
    Protocol(&'static str),
    /// An id or digest in the header is none.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The digest in the header is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// The announced size cannot be that of the update that is expected.
    #[error("upload of {got} bytes: {least} to {most} are expected, {least} of them tensors by the layout")]
    Size {
        /// Announced.
        got: u64,
        /// Tensor bytes.
        least: u64,
        /// Tensor bytes and the largest header.
        most: u64,
    },
    /// The stream does not start where the stored bytes end.
    #[error("upload at offset {got}: {stored} bytes are stored")]
    Offset {
        /// Offset in the header.
        got: u64,
        /// Bytes stored.
        stored: u64,
    },
    /// More data than announced.
    #[error("upload: {got} bytes came, {total} were announced")]
    TooLong {
        /// Bytes that came.
        got: u64,
        /// Bytes announced.
        total: u64,
    },
    /// What came is not what the digest names.
    #[error("upload: expected {expected}, the bytes have {got}")]
    Hash {
        /// Digest in the header.
        expected: Digest,
        /// Digest of the bytes.
        got: Digest,
    },
    /// The content is not a valid update.
    #[error("update refused: {0}")]
    Invalid(#[from] UpdateRefusal),
    /// What the round began with cannot be built here.
    #[error("upload: the change cannot be checked: {0}")]
    Start(#[from] MethodError),
    /// It was decided before, against it.
    #[error("update refused: {0}")]
    Refused(String),
    /// The staging folder is full.
    #[error("the staging folder holds {held} bytes, with this upload it would exceed its limit of {limit}")]
    StagingFull {
        /// Bytes held.
        held: u64,
        /// `max_staging_bytes`.
        limit: u64,
    },
    /// A staged file could not be written or read.
    #[error("upload: cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The stored blob could not be written.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A newer stream for the same upload has come.
    #[error("upload: a newer stream of the same upload took over")]
    Superseded,
    /// Work on the file stopped abruptly.
    #[error("upload: checking stopped abruptly: {0}")]
    Abrupt(#[from] tokio::task::JoinError),
    /// The engine or the store refused.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The transport broke off.
    #[error("upload broke off: {0}")]
    Stream(Box<Status>),
}

impl UploadError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Protocol(_) | Self::Id(_) | Self::Digest(_) | Self::Size { .. } | Self::TooLong { .. } => {
                ErrorCode::InvalidArgument
            }
            Self::Invalid(_) | Self::Refused(_) => ErrorCode::InvalidArgument,
            Self::Offset { .. } => ErrorCode::OutOfRange,
            Self::Hash { .. } | Self::Superseded => ErrorCode::Aborted,
            Self::StagingFull { .. } => ErrorCode::ResourceExhausted,
            Self::File { source, .. } if is_full(source) => ErrorCode::ResourceExhausted,
            Self::Blob(error) if error.is_full() => ErrorCode::ResourceExhausted,
            Self::File { .. } | Self::Blob(_) | Self::Stream(_) => ErrorCode::Unavailable,
            Self::Abrupt(_) | Self::Driver(_) | Self::Start(_) => ErrorCode::Internal,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Invalid(UpdateRefusal::Unclipped { .. }) => {
                Some("the client must scale its change down to the clip; check that it runs the same version")
            }
            Self::Size { .. } => {
                Some("the client's layout differs from the run's: check that both run the same version")
            }
            Self::Offset { .. } => Some("ask UploadStatus and send from the bytes it names"),
            Self::Hash { .. } => Some("the bytes were damaged on the way; send the file again from offset 0"),
            Self::StagingFull { .. } => {
                Some("try again later, or raise `max_staging_bytes` in the coordinator's config")
            }
            Self::File { .. } | Self::Blob(_) => {
                Some("free space on the coordinator's disk; what was received is kept, send the rest then")
            }
            Self::Superseded | Self::Stream(_) => Some("what was received is kept, send the rest"),
            _ => None,
        }
    }
}

impl From<UploadError> for Status {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Driver(error) => error.into(),
            error => status(error.code(), error.to_string(), error.hint()),
        }
    }
}

/// For `map_err` after a file operation.
pub(super) fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UploadError {
    let path = path.to_owned();
    move |source| UploadError::File { action, path, source }
}
