//! The one table from what went wrong to a gRPC status, and back to words for a person.

use std::error::Error;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Metadata key under which the error code travels.
const CODE_KEY: &str = "rondo-code";
/// Metadata key under which the hint travels; binary, because hints quote names that need not be ASCII.
const HINT_KEY: &str = "rondo-hint-bin";
/// Longest message and longest hint, in bytes: both travel in HTTP/2 headers, whose total size is limited.
const MAX_TEXT: usize = 3000;

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

/// The table: code, name in metadata, gRPC code, and whether trying the same again can help.
const TABLE: [(ErrorCode, &str, Code, bool); 14] = [
    (ErrorCode::InvalidArgument, "invalid-argument", Code::InvalidArgument, false),
    (ErrorCode::NotFound, "not-found", Code::NotFound, false),
    (ErrorCode::AlreadyExists, "already-exists", Code::AlreadyExists, false),
    (ErrorCode::PermissionDenied, "permission-denied", Code::PermissionDenied, false),
    (ErrorCode::Unauthenticated, "unauthenticated", Code::Unauthenticated, false),
    (ErrorCode::FailedPrecondition, "failed-precondition", Code::FailedPrecondition, false),
    (ErrorCode::ResourceExhausted, "resource-exhausted", Code::ResourceExhausted, true),
    (ErrorCode::Aborted, "aborted", Code::Aborted, true),
    (ErrorCode::OutOfRange, "out-of-range", Code::OutOfRange, false),
    (ErrorCode::DeadlineExceeded, "deadline-exceeded", Code::DeadlineExceeded, true),
    (ErrorCode::Unavailable, "unavailable", Code::Unavailable, true),
    (ErrorCode::Unimplemented, "unimplemented", Code::Unimplemented, false),
    (ErrorCode::DataLoss, "data-loss", Code::DataLoss, false),
    (ErrorCode::Internal, "internal", Code::Internal, false),
];

impl ErrorCode {
    fn row(self) -> &'static (ErrorCode, &'static str, Code, bool) {
        // A test walks the table, so the fallback row is never taken.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[TABLE.len() - 1])
    }

    /// Its name, as metadata and logs spell it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The gRPC code it travels as.
    pub fn grpc(self) -> Code {
        self.row().2
    }

    /// Whether the same request may succeed later.
    pub fn retryable(self) -> bool {
        self.row().3
    }

    /// The code a status stands for: ours if it names one, otherwise by its gRPC code. A status that was made on this
    /// side because the connection broke stands for `Unavailable`, whatever code the transport chose.
    pub fn of(status: &Status) -> Self {
        let named = status.metadata().get(CODE_KEY).and_then(|value| value.to_str().ok());
        if let Some(row) = named.and_then(|name| TABLE.iter().find(|row| row.1 == name)) {
            return row.0;
        }
        // Only a status that never crossed the wire has a cause.
        if status.source().is_some() || status.code() == Code::Cancelled {
            return Self::Unavailable;
        }
        TABLE.iter().find(|row| row.2 == status.code()).map_or(Self::Internal, |row| row.0)
    }
}

/// A status that carries a code, a message and, where there is one, a hint how to mend it.
pub fn status(code: ErrorCode, message: impl Into<String>, hint: Option<&str>) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(CODE_KEY, MetadataValue::from_static(code.name()));
    if let Some(hint) = hint {
        metadata.insert_bin(HINT_KEY, MetadataValue::from_bytes(shorten(hint).as_bytes()));
    }
    Status::with_metadata(code.grpc(), shorten(&message.into()), metadata)
}

/// What to tell a person about a status: a message, and how to mend it when that is known.
pub fn explain(status: &Status) -> (String, Option<String>) {
    let hint = status.metadata().get_bin(HINT_KEY).and_then(|value| value.to_bytes().ok());
    let hint = hint.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    if status.metadata().get(CODE_KEY).is_some() {
        return (status.message().to_owned(), hint);
    }
    // Not from a Rondo server, so from the transport: its own message is only "transport error".
    let mut message = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !text.is_empty() && !message.contains(&text) {
            message = if message.is_empty() { text } else { format!("{message}: {text}") };
        }
        cause = error.source();
    }
    let hint = hint.or_else(|| transport_hint(&message, ErrorCode::of(status)).map(str::to_owned));
    (if message.is_empty() { status.code().to_string() } else { message }, hint)
}

fn transport_hint(message: &str, code: ErrorCode) -> Option<&'static str> {
    let message = message.to_lowercase();
    let has = |word: &str| message.contains(word);
    if has("connection refused") || has("timed out") || has("dns") || has("lookup") || has("unreachable") {
        Some("check that the coordinator is running and that its address and port can be reached from here")
    } else if has("expired") {
        Some("a certificate has expired, or a clock is wrong: compare the clocks, then enrol again if need be")
    } else if has("certificate") || has("unknownissuer") || has("handshake") {
        Some("the certificates do not fit together: enrol again with the CA fingerprint the coordinator prints")
    } else if code == ErrorCode::Unavailable {
        Some("try again; if it goes on, look at the coordinator's log")
    } else {
        None
    }
}

/// Cuts at a character boundary and says so.
fn shorten(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_TEXT);
    format!("{} ...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_status() {
        for (code, name, grpc, _) in TABLE {
            assert_eq!(code.name(), name);
            let status = status(code, "no such run \"x\"", Some("try `rondo run list` — all runs"));
            assert_eq!(status.code(), grpc);
            assert_eq!(ErrorCode::of(&status), code);
            let (message, hint) = explain(&status);
            assert_eq!(message, "no such run \"x\"");
            assert_eq!(hint.as_deref(), Some("try `rondo run list` — all runs"));
        }
    }

    #[test]
    fn a_foreign_status_is_read_by_its_grpc_code() {
        let foreign = Status::new(Code::Unavailable, "connection refused");
        assert_eq!(ErrorCode::of(&foreign), ErrorCode::Unavailable);
        assert!(explain(&foreign).1.is_some_and(|hint| hint.contains("running")));
        assert_eq!(ErrorCode::of(&Status::new(Code::Unknown, "odd")), ErrorCode::Internal);
    }

    #[test]
    fn a_broken_connection_is_worth_another_try() {
        let cause = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "peer closed connection");
        let broken = Status::from_error(Box::new(cause));
        assert!(ErrorCode::of(&broken).retryable());
        let (message, hint) = explain(&broken);
        assert!(message.contains("peer closed connection") && hint.is_some(), "{message}");
        // What the server said itself is not mistaken for a broken connection.
        assert_eq!(ErrorCode::of(&Status::internal("a bug")), ErrorCode::Internal);
    }

    #[test]
    fn long_texts_are_cut_so_that_headers_stay_small() {
        let long = "é".repeat(10_000);
        let status = status(ErrorCode::InvalidArgument, long.clone(), Some(&long));
        assert!(status.message().len() <= MAX_TEXT + 4);
        assert!(explain(&status).1.is_some_and(|hint| hint.ends_with(" ...")));
    }
}
