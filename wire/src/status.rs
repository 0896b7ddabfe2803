//! The one table from what went wrong to a gRPC status, and back to words for a person.

use std::error::Error;

use rondo_proto::error::ErrorCode;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Metadata key under which the error code travels.
const CODE_KEY: &str = "rondo-code";
/// Metadata key under which the hint travels; binary, because hints quote names that need not be
/// ASCII.
const HINT_KEY: &str = "rondo-hint-bin";
/// Longest message and longest hint, in bytes: both travel in HTTP/2 headers, whose total size is
/// limited.
const MAX_TEXT: usize = 3000;

/// The gRPC code that each error code travels as.
const TABLE: [(ErrorCode, Code); 14] = [
    (ErrorCode::InvalidArgument, Code::InvalidArgument),
    (ErrorCode::NotFound, Code::NotFound),
    (ErrorCode::AlreadyExists, Code::AlreadyExists),
    (ErrorCode::PermissionDenied, Code::PermissionDenied),
    (ErrorCode::Unauthenticated, Code::Unauthenticated),
    (ErrorCode::FailedPrecondition, Code::FailedPrecondition),
    (ErrorCode::ResourceExhausted, Code::ResourceExhausted),
    (ErrorCode::Aborted, Code::Aborted),
    (ErrorCode::OutOfRange, Code::OutOfRange),
    (ErrorCode::DeadlineExceeded, Code::DeadlineExceeded),
    (ErrorCode::Unavailable, Code::Unavailable),
    (ErrorCode::Unimplemented, Code::Unimplemented),
    (ErrorCode::DataLoss, Code::DataLoss),
    (ErrorCode::Internal, Code::Internal),
];

/// The gRPC code that an error code travels as.
fn grpc_code(code: ErrorCode) -> Code {
    // A test walks all codes, so the fallback is never taken.
    TABLE.iter().find(|row| row.0 == code).map_or(Code::Internal, |row| row.1)
}

/// The code a status stands for: ours if it names one, otherwise by its gRPC code. A status that
/// was made on this side because the connection broke stands for `Unavailable`, whatever code the
/// transport chose.
pub fn code_of(status: &Status) -> ErrorCode {
    let named = status.metadata().get(CODE_KEY).and_then(|value| value.to_str().ok());
    if let Some(code) = named.and_then(ErrorCode::from_name) {
        return code;
    }
    // Only a status that never crossed the wire has a cause.
    if status.source().is_some() || status.code() == Code::Cancelled {
        return ErrorCode::Unavailable;
    }
    TABLE.iter().find(|row| row.1 == status.code()).map_or(ErrorCode::Internal, |row| row.0)
}

/// A status that carries a code, a message and, where there is one, a hint how to fix it.
pub fn status(code: ErrorCode, message: impl Into<String>, hint: Option<&str>) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(CODE_KEY, MetadataValue::from_static(code.name()));
    if let Some(hint) = hint {
        metadata.insert_bin(HINT_KEY, MetadataValue::from_bytes(shorten(hint).as_bytes()));
    }
    Status::with_metadata(grpc_code(code), shorten(&message.into()), metadata)
}

/// What to show a person about a status: a message, and how to fix it when that is known.
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
    let hint = hint.or_else(|| transport_hint(&message, code_of(status)).map(str::to_owned));
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
        assert_eq!(ErrorCode::all().count(), TABLE.len());
        for code in ErrorCode::all() {
            let grpc = TABLE.iter().find(|row| row.0 == code).unwrap().1;
            let status = status(code, "no such run \"x\"", Some("try `rondo run list` — all runs"));
            assert_eq!(status.code(), grpc);
            assert_eq!(code_of(&status), code);
            let (message, hint) = explain(&status);
            assert_eq!(message, "no such run \"x\"");
            assert_eq!(hint.as_deref(), Some("try `rondo run list` — all runs"));
        }
    }

    #[test]
    fn a_foreign_status_is_read_by_its_grpc_code() {
        let foreign = Status::new(Code::Unavailable, "connection refused");
        assert_eq!(code_of(&foreign), ErrorCode::Unavailable);
        assert!(explain(&foreign).1.is_some_and(|hint| hint.contains("running")));
        assert_eq!(code_of(&Status::new(Code::Unknown, "odd")), ErrorCode::Internal);
    }

    #[test]
    fn a_broken_connection_is_worth_another_try() {
        let cause = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "peer closed connection");
        let broken = Status::from_error(Box::new(cause));
        assert!(code_of(&broken).retryable());
        let (message, hint) = explain(&broken);
        assert!(message.contains("peer closed connection") && hint.is_some(), "{message}");
        // What the server said itself is not mistaken for a broken connection.
        assert_eq!(code_of(&Status::internal("a bug")), ErrorCode::Internal);
    }

    #[test]
    fn long_texts_are_cut_so_that_headers_stay_small() {
        let long = "é".repeat(10_000);
        let status = status(ErrorCode::InvalidArgument, long.clone(), Some(&long));
        assert!(status.message().len() <= MAX_TEXT + 4);
        assert!(explain(&status).1.is_some_and(|hint| hint.ends_with(" ...")));
    }
}
