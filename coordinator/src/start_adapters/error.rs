//! Why an adapter was not accepted, and the status that its sender gets.

use std::io;
use std::path::{Path, PathBuf};

use rondo_methods::StartAdapterError;
use rondo_proto::Digest;
use rondo_proto::digest::InvalidDigest;
use rondo_proto::error::ErrorCode;
use rondo_proto::files::is_full;
use rondo_wire::status::status;
use tonic::Status;

/// Why an adapter cannot be what a run starts from.
#[derive(Debug, thiserror::Error)]
pub enum UploadedAdapterError {
    /// The messages are not a header followed by data.
    #[error("adapter upload: {0}")]
    Protocol(&'static str),
    /// The digest is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// More or fewer bytes than announced.
    #[error("adapter upload: {got} bytes came, {total} were announced")]
    Size {
        /// Bytes that came.
        got: u64,
        /// Bytes announced.
        total: u64,
    },
    /// What came is not what the digest names.
    #[error("adapter upload: expected {expected}, the bytes have {got}")]
    Hash {
        /// Digest in the header.
        expected: Digest,
        /// Digest of the bytes.
        got: Digest,
    },
    /// No room.
    #[error("uploaded adapters take {held} bytes, with this one they would exceed the limit of {limit}")]
    Full {
        /// Bytes held.
        held: u64,
        /// `max_staging_bytes`.
        limit: u64,
    },
    /// Nobody uploaded it, or not lately.
    #[error("there is no uploaded adapter {0} to start from")]
    Missing(Digest),
    /// It is not of the right form, or does not fit the base.
    #[error(transparent)]
    Content(#[from] StartAdapterError),
    /// The next piece did not come.
    #[error("adapter upload: nothing came for a minute")]
    Slow,
    /// A file could not be written or read.
    #[error("adapter upload: cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Work on the file stopped abruptly.
    #[error("adapter upload: checking stopped abruptly: {0}")]
    Abrupt(#[from] tokio::task::JoinError),
    /// The transport broke off.
    #[error("adapter upload broke off: {0}")]
    Stream(Box<Status>),
}

impl UploadedAdapterError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Protocol(_) | Self::Digest(_) | Self::Size { .. } => ErrorCode::InvalidArgument,
            // On this disk it is the coordinator's trouble, whatever the file holds.
            Self::Content(StartAdapterError::File(rondo_methods::FileError::Io { .. })) => ErrorCode::Unavailable,
            Self::Content(_) => ErrorCode::InvalidArgument,
            Self::Hash { .. } => ErrorCode::Aborted,
            Self::Full { .. } => ErrorCode::ResourceExhausted,
            Self::Missing(_) => ErrorCode::NotFound,
            Self::Slow => ErrorCode::DeadlineExceeded,
            Self::File { source, .. } if is_full(source) => ErrorCode::ResourceExhausted,
            Self::File { .. } | Self::Stream(_) => ErrorCode::Unavailable,
            Self::Abrupt(_) => ErrorCode::Internal,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Content(error) => error.hint(),
            Self::Hash { .. } => Some("the bytes were damaged on the way; send the file again"),
            Self::Full { .. } => Some("try again in an hour, or raise `max_staging_bytes` in the coordinator's config"),
            Self::Missing(_) => Some("an upload is kept for an hour; upload it again and create the run then"),
            Self::File { .. } => Some("free space on the coordinator's disk, then try again"),
            Self::Slow | Self::Stream(_) => Some("try again"),
            _ => None,
        }
    }
}

impl From<UploadedAdapterError> for Status {
    fn from(error: UploadedAdapterError) -> Self {
        status(error.code(), error.to_string(), error.hint())
    }
}

/// For `map_err` after a file operation.
pub(super) fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UploadedAdapterError + use<> {
    let path = path.to_owned();
    move |source| UploadedAdapterError::File { action, path, source }
}
