//! What Rondo's programs say to each other: messages, typed ids, digests, tensor manifests, run
//! files and error codes. Nothing here opens a connection: `rondo-wire` does.

pub mod base_tokens;
pub mod clock;
pub mod digest;
pub mod error;
pub mod files;
pub mod groups;
pub mod ids;
pub mod manifest;
pub mod nearest;
pub mod placeholder;
pub mod run_file;
pub mod wording;

pub use digest::Digest;
pub use ids::{ClientId, RunId};

/// Messages generated from `protos/rondo/v1`.
#[allow(clippy::all, missing_docs, unreachable_pub)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/rondo.v1.rs"));
}
