//! What Rondo's programs say to each other: gRPC messages, typed ids, digests, tensor manifests, run files and the
//! table from error codes to gRPC statuses.

pub mod architecture;
pub mod base;
pub mod clock;
pub mod digest;
pub mod error;
pub mod files;
pub mod gguf;
pub mod gguf_names;
pub mod identity;
pub mod ids;
pub mod manifest;
pub mod nearest;
pub mod run_file;
pub mod transfer;

pub use digest::Digest;
pub use ids::{ClientId, RunId};

/// Messages and services generated from `protos/rondo/v1`.
#[allow(clippy::all, missing_docs, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("rondo.v1");
}
