//! The daemon against a coordinator and a trainer that are played by the
//! tests: no network, and libtorch in one test alone.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod admission;
mod approval;
mod coordinator;
mod disclosure;
mod earlier_version;
mod faults;
mod flow;
mod grpc;
mod machine;
mod private;
mod site;
