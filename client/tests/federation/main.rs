//! Whole federations: a coordinator on loopback and real `rondo-client`
//! processes that train a tiny model with libtorch.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::print_stderr)]

mod central;
mod client;
mod coordinator;
mod groups;
mod privacy;
mod renewal;
mod rounds;
mod starting;
mod tokens;
