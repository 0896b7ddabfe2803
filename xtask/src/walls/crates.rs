//! Which crates of the workspace may use which, by what they declare.

use anyhow::{Context, Result};
use serde_json::Value;

/// Which crates of the workspace a crate may use. Those that stand
/// here and not in the workspace are passed over.
const MAY_USE: [(&str, &[&str]); 14] = [
    ("rondo-proto", &[]),
    ("rondo-wire", &["rondo-proto"]),
    ("rondo-base", &["rondo-proto"]),
    ("rondo-methods", &["rondo-proto", "rondo-base"]),
    ("rondo-dp", &[]),
    ("rondo-data", &["rondo-proto", "rondo-base"]),
    ("rondo-rounds", &["rondo-proto", "rondo-base", "rondo-methods", "rondo-dp"]),
    ("rondo-trainer-api", &["rondo-proto", "rondo-base", "rondo-methods", "rondo-dp", "rondo-data"]),
    ("rondo-trainer", &["rondo-proto", "rondo-base", "rondo-methods", "rondo-dp", "rondo-data", "rondo-trainer-api"]),
    ("rondo-coordinator", &["rondo-proto", "rondo-wire", "rondo-base", "rondo-methods", "rondo-dp", "rondo-rounds"]),
    (
        "rondo-client",
        &[
            "rondo-proto",
            "rondo-wire",
            "rondo-base",
            "rondo-methods",
            "rondo-dp",
            "rondo-data",
            "rondo-trainer-api",
            "rondo-trainer",
        ],
    ),
    ("rondo", &["rondo-proto", "rondo-wire", "rondo-base", "rondo-methods", "rondo-dp"]),
    (
        "rondo-benches",
        &[
            "rondo-proto",
            "rondo-base",
            "rondo-methods",
            "rondo-dp",
            "rondo-data",
            "rondo-trainer-api",
            "rondo-trainer",
            "rondo-client",
        ],
    ),
    ("xtask", &[]),
];

/// What the round engine may not use directly: it does
/// no I/O, reads no clock and draws no randomness.
const NOT_IN_ROUNDS: [&str; 8] = ["tokio", "tonic", "sled", "object_store", "getrandom", "rand", "tempfile", "time"];

/// What is wrong with the dependencies that the crates declare, from `cargo metadata --no-deps`.
pub(super) fn breaches(metadata: &Value) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for package in packages(metadata)? {
        let name = name(package)?;
        let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
            breaches.push(format!("{name}: say in xtask/src/walls/crates.rs which crates it may use"));
            continue;
        };
        // Tests may reach across (the coordinator's drive real clients, say); what ships may not.
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for dependency in dependencies.filter(|dependency| dependency["kind"] != "dev") {
            let used = dependency["name"].as_str().unwrap_or_default();
            let is_own = MAY_USE.iter().any(|(known, _)| *known == used);
            if is_own && !allowed.contains(&used) {
                breaches.push(format!("{name} uses {used}, but may use {allowed:?} only"));
            }
            if name == "rondo-rounds" && NOT_IN_ROUNDS.contains(&used) {
                breaches.push(format!("{name} uses {used}, but does no I/O, reads no clock and draws no randomness"));
            }
        }
    }
    Ok(breaches)
}

/// The workspace's own packages.
pub(super) fn packages(metadata: &Value) -> Result<&Vec<Value>> {
    metadata["packages"].as_array().context("cargo metadata lists no packages")
}

/// A package's name.
pub(super) fn name(package: &Value) -> Result<&str> {
    package["name"].as_str().context("a package without a name")
}

/// Names of the packages that `cargo build` takes without further words.
pub(super) fn default_members(metadata: &Value) -> Result<Vec<&str>> {
    let ids = metadata["workspace_default_members"].as_array().context("cargo metadata lists no default members")?;
    packages(metadata)?.iter().filter(|package| ids.contains(&package["id"])).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(name: &str, uses: &[(&str, Option<&str>)]) -> Vec<String> {
        let dependency = |(name, kind): &(&str, Option<&str>)| json!({ "name": name, "kind": kind });
        let dependencies: Vec<Value> = uses.iter().map(dependency).collect();
        breaches(&json!({ "packages": [{ "name": name, "dependencies": dependencies }] })).unwrap()
    }

    #[test]
    fn a_dependency_against_the_order_is_a_breach() {
        assert!(found("rondo-methods", &[("rondo-proto", None), ("faer", None)]).is_empty());
        assert!(found("rondo-methods", &[("rondo-wire", None)])[0].contains("rondo-methods uses rondo-wire"));
        assert!(found("rondo-trainer-api", &[("rondo-trainer", None)])[0].contains("uses rondo-trainer,"));
        assert!(found("rondo-coordinator", &[("rondo-client", Some("build"))])[0].contains("uses rondo-client"));
        assert!(found("rondo-coordinator", &[("rondo-client", Some("dev"))]).is_empty());
    }

    #[test]
    fn the_engine_reads_no_clock_and_draws_no_randomness() {
        for planted in ["getrandom", "object_store", "time", "tokio"] {
            assert!(found("rondo-rounds", &[(planted, None)])[0].contains(planted));
            assert!(found("rondo-coordinator", &[(planted, None)]).is_empty());
        }
    }

    #[test]
    fn a_crate_without_a_place_is_a_breach() {
        assert!(found("rondo-extra", &[])[0].contains("say in xtask/src/walls/crates.rs"));
    }

    #[test]
    fn the_table_has_no_circle_and_names_known_crates() {
        // Every crate uses only crates above it in the
        // table, so that it can be built from top to bottom.
        for (at, (name, allowed)) in MAY_USE.iter().enumerate() {
            for used in *allowed {
                assert!(MAY_USE[..at].iter().any(|(known, _)| known == used), "{name} uses {used}");
            }
        }
    }

    #[test]
    fn default_members_are_found_by_id() {
        let metadata = json!({ "packages": [{ "name": "a", "id": "1" }, { "name": "b", "id": "2" }], "workspace_default_members": ["2"] });
        assert_eq!(default_members(&metadata).unwrap(), ["b"]);
    }
}
