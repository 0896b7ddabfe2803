//! Compiles the messages of the .proto files with protox, so that no protoc has to be installed.
//! The services are compiled by `rondo-wire`.

use std::error::Error;

const FILES: [&str; 4] = [
    "protos/rondo/v1/record.proto",
    "protos/rondo/v1/enrolment.proto",
    "protos/rondo/v1/federation.proto",
    "protos/rondo/v1/administration.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=protos");
    let descriptors = protox::compile(FILES, ["protos"])?;
    prost_build::Config::new()
        .bytes(["."])
        .type_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")
        .type_attribute(".", "#[allow(missing_docs)]")
        .message_attribute(".", "#[serde(default)]")
        // Left out where it is false, so that round records that were stored before keep their form.
        .field_attribute(
            ".rondo.v1.Participant.metrics_withheld",
            "#[serde(skip_serializing_if = \"std::ops::Not::not\")]",
        )
        .field_attribute(
            "rondo.v1.BaseModel.token_digest",
            "#[serde(skip_serializing_if = \"String::is_empty\")]", // records stay as they were
        )
        .compile_fds(descriptors)?;
    Ok(())
}
