//! How Rondo's programs reach each other: gRPC clients and servers over mutual TLS, identities and
//! how they are enrolled, files in chunks, and the way of an error through a gRPC status.

pub mod identity;
pub mod status;
pub mod transfer;

/// Clients and servers generated from the services in `proto/protos/rondo/v1`.
#[allow(clippy::all, missing_docs, unreachable_pub)]
pub mod stubs {
    tonic::include_proto!("rondo.v1");
}
