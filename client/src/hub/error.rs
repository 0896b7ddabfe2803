//! Why a model could not be fetched.

use std::io;
use std::path::PathBuf;

use hf_hub::api::sync::ApiError;

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A name that no repository, revision or file has.
    #[error("{what} {name:?} is no name of a hub's; {fix}")]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
        /// What is allowed.
        fix: &'static str,
    },
    /// The repository is none that can be used.
    #[error("{repository} at {revision} {problem}")]
    Unfit {
        /// The repository.
        repository: String,
        /// The revision.
        revision: String,
        /// What is wrong, and the fix.
        problem: String,
    },
    /// The hub does not answer, or with an error.
    #[error(
        "{repository} at {revision}: {what}: {source}; HF_ENDPOINT sets another hub, and a file `token` in HF_HOME holds the token for repositories that need one"
    )]
    Request {
        /// The repository.
        repository: String,
        /// The revision.
        revision: String,
        /// What was asked for.
        what: String,
        /// What came.
        source: Box<ApiError>,
    },
    /// A file came out in another size than the hub says.
    #[error("{name} came out with {found} bytes, the hub says {expected}; it was removed, try again")]
    Size {
        /// The file.
        name: String,
        /// By the hub.
        expected: u64,
        /// On the disk.
        found: u64,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Nobody knows where the cache is.
    #[error("neither HF_HOME nor a home folder is set; set HF_HOME to a folder for downloads")]
    NoHome,
}
