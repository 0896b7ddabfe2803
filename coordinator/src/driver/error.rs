//! Why an input came to nothing, and why a driver could not start.

use rondo_proto::error::ErrorCode;
use rondo_rounds::{Rejection, ResumeError};
use rondo_wire::status::status;

use crate::store::StoreError;

/// Why an input came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The engine refuses it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It could not be made durable, so it did not happen.
    #[error("the coordinator cannot write its store: {0}")]
    Store(String),
    /// The coordinator is going down.
    #[error("the coordinator is shutting down")]
    Stopped,
}

impl From<DriverError> for tonic::Status {
    fn from(error: DriverError) -> Self {
        match &error {
            DriverError::Rejected(rejection) => {
                status(rejection.code(), rejection.to_string(), rejection.hint().as_deref())
            }
            DriverError::Store(_) => status(
                ErrorCode::Unavailable,
                error.to_string(),
                Some("free space on the coordinator's disk; nothing was changed, try again then"),
            ),
            DriverError::Stopped => status(ErrorCode::Unavailable, error.to_string(), Some("try again in a moment")),
        }
    }
}

/// Why a driver could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The records cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The records do not make a state.
    #[error(transparent)]
    Resume(#[from] ResumeError),
}
