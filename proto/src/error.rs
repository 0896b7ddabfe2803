//! What can go wrong between Rondo's programs, in the few kinds that a caller can act on.

/// What went wrong, in the few kinds that a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// The request makes no sense, whatever the server's state.
    InvalidArgument,
    /// No such run, round, client, base, token or blob.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The certificate is good, but its role or the assignment does not allow this.
    PermissionDenied,
    /// No certificate, a revoked one, or a join token that is not valid.
    Unauthenticated,
    /// The request makes sense, but not in the present state.
    FailedPrecondition,
    /// A limit was reached: size, rate, disk.
    ResourceExhausted,
    /// The state moved on while the request was under way; ask again.
    Aborted,
    /// An offset or number outside what there is.
    OutOfRange,
    /// It took too long.
    DeadlineExceeded,
    /// The server cannot answer now; try again later.
    Unavailable,
    /// The method or option is known, but not in this version.
    Unimplemented,
    /// Stored bytes are damaged.
    DataLoss,
    /// A bug of ours.
    Internal,
}

/// The table: code, name in metadata and logs, and whether trying the same again can help.
const TABLE: [(ErrorCode, &str, bool); 14] = [
    (ErrorCode::InvalidArgument, "invalid-argument", false),
    (ErrorCode::NotFound, "not-found", false),
    (ErrorCode::AlreadyExists, "already-exists", false),
    (ErrorCode::PermissionDenied, "permission-denied", false),
    (ErrorCode::Unauthenticated, "unauthenticated", false),
    (ErrorCode::FailedPrecondition, "failed-precondition", false),
    (ErrorCode::ResourceExhausted, "resource-exhausted", true),
    (ErrorCode::Aborted, "aborted", true),
    (ErrorCode::OutOfRange, "out-of-range", false),
    (ErrorCode::DeadlineExceeded, "deadline-exceeded", true),
    (ErrorCode::Unavailable, "unavailable", true),
    (ErrorCode::Unimplemented, "unimplemented", false),
    (ErrorCode::DataLoss, "data-loss", false),
    (ErrorCode::Internal, "internal", false),
];

impl ErrorCode {
    fn row(self) -> &'static (ErrorCode, &'static str, bool) {
        // A test walks the table, so the fallback row is never taken.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[TABLE.len() - 1])
    }

    /// All codes.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// Its name, as metadata and logs spell it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The code of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Whether the same request may succeed later.
    pub fn retryable(self) -> bool {
        self.row().2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_name() {
        for (code, name, retryable) in TABLE {
            assert_eq!((code.name(), code.retryable()), (name, retryable));
            assert_eq!(ErrorCode::from_name(name), Some(code));
        }
        assert_eq!(ErrorCode::from_name("no-such-code"), None);
    }
}
