//! Compiles the services of the .proto files into tonic's clients and servers, over the messages of
//! `rondo-proto`.

use std::error::Error;

const PROTOS: &str = "../proto/protos";
const FILES: [&str; 3] = ["rondo/v1/enrolment.proto", "rondo/v1/federation.proto", "rondo/v1/administration.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTOS}");
    let files = FILES.map(|file| format!("{PROTOS}/{file}"));
    let descriptors = protox::compile(files, [PROTOS])?;
    tonic_prost_build::configure().extern_path(".rondo.v1", "::rondo_proto::v1").compile_fds(descriptors)?;
    Ok(())
}
