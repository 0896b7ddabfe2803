//! Tests of the coordinator from outside: real TLS on loopback, real files, clients that speak gRPC
//! and train nothing.

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod access;
mod central;
mod comparing;
mod coordinator;
mod earlier_build;
mod earlier_version;
mod enrolment;
mod fake_client;
mod process;
mod restart;
mod runs;
mod starting;
mod tensors;
mod uploads;
