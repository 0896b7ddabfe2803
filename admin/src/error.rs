//! What a command reports when it cannot do its work: a kind
//! (which is the exit code), a message and a hint.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use rondo_base::BaseError;
use rondo_methods::{FileError, MethodError};
use rondo_proto::digest::InvalidDigest;
use rondo_proto::error::ErrorCode;
use rondo_proto::manifest::ManifestError;
use rondo_proto::run_file::RunFileError;
use rondo_wire::identity::IdentityError;
use rondo_wire::status::{code_of, explain};
use rondo_wire::transfer::ReceiveError;
use tonic::Status;

/// Who can put it right: whoever runs the system, or whoever typed the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command was understood and could not be done: exit code 1.
    Failed,
    /// The command makes no sense: exit code 2.
    Usage,
}

/// Why a command ended without success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// Which exit code it is.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl CliError {
    /// A failure.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Failed, message: message.into(), hint: None }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Usage, message: message.into(), hint: None }
    }

    /// The same with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A file that cannot be read or written.
    pub fn io(path: &Path, source: &io::Error) -> Self {
        if source.kind() != io::ErrorKind::NotFound {
            return Self::failed(format!("{}: {source}", path.display()));
        }
        let error = Self::failed(format!("{} is not there", path.display()));
        match std::env::current_dir() {
            Ok(here) if path.is_relative() => error.hint(format!("check the path; it starts at {}", here.display())),
            _ => error.hint("check the path"),
        }
    }

    /// 1 or 2.
    pub fn exit_code(&self) -> ExitCode {
        match self.kind {
            ErrorKind::Failed => ExitCode::from(1),
            ErrorKind::Usage => ExitCode::from(2),
        }
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        let (message, hint) = explain(&status);
        let hint = hint.or_else(|| match code_of(&status) {
            ErrorCode::Unauthenticated => Some("this identity is not accepted: `rondo doctor` says more".to_owned()),
            ErrorCode::PermissionDenied => Some("this needs an operator's identity (`rondo join`)".to_owned()),
            _ => None,
        });
        Self { kind: ErrorKind::Failed, message, hint }
    }
}

impl From<IdentityError> for CliError {
    fn from(error: IdentityError) -> Self {
        let hint = match &error {
            IdentityError::Missing { .. } => Some(
                "enrol with `rondo join URL --token TOKEN --ca-fingerprint SHA256`, or name another folder with \
                 --identity or RONDO_IDENTITY"
                    .to_owned(),
            ),
            error => error.hint(),
        };
        Self { kind: ErrorKind::Failed, message: error.to_string(), hint }
    }
}

macro_rules! failure {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::failed(error.to_string())
            }
        })*
    };
}

failure!(BaseError, FileError, InvalidDigest, ManifestError, ReceiveError, RunFileError);

impl From<MethodError> for CliError {
    fn from(error: MethodError) -> Self {
        Self { kind: ErrorKind::Failed, message: error.to_string(), hint: error.hint().map(str::to_owned) }
    }
}
