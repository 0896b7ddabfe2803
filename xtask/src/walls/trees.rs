//! What may not be anywhere below a crate, by `cargo tree`: direct
//! dependencies alone do not show what is linked.

use std::collections::BTreeSet;

/// A tree that cargo lays out, and what may not be in it.
pub(super) struct Wall {
    pub(super) package: &'static str,
    /// Further words for `cargo tree`.
    pub(super) options: &'static [&'static str],
    pub(super) forbidden: &'static [&'static str],
    /// Why not.
    pub(super) why: &'static str,
}

const LIBTORCH: &[&str] = &["tch", "torch-sys"];
const PURE: &str = "it is pure: no I/O, no network, no database, no libtorch";
const NOT_PURE: &[&str] = &["tokio", "tonic", "rustls", "sled", "tch", "torch-sys"];

/// The trees that are looked at.
pub(super) const WALLS: [Wall; 9] = [
    pure("rondo-proto"),
    pure("rondo-base"),
    pure("rondo-methods"),
    pure("rondo-data"),
    pure("rondo-trainer-api"),
    pure("rondo-rounds"),
    Wall { package: "rondo-rounds", options: &[], forbidden: &["opendp"], why: "it plans noise and draws none" },
    Wall { package: "rondo-coordinator", options: &[], forbidden: LIBTORCH, why: "it trains nothing" },
    Wall {
        package: "rondo-client",
        options: &["--no-default-features"],
        forbidden: &["tch", "torch-sys", "rondo-trainer"],
        why: "the daemon asks a trainer that it is given",
    },
];

const fn pure(package: &'static str) -> Wall {
    Wall { package, options: &[], forbidden: NOT_PURE, why: PURE }
}

/// What a default member may not need, tests and build scripts included.
pub(super) const WITHOUT_LIBTORCH: &[&str] = LIBTORCH;

/// The crates in the output of `cargo tree --prefix none --format {p}`.
pub(super) fn crates(tree: &str) -> BTreeSet<&str> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

/// What is in a tree and may not be.
pub(super) fn breaches(package: &str, tree: &str, forbidden: &[&str], why: &str) -> Vec<String> {
    let crates = crates(tree);
    let found = forbidden.iter().filter(|name| crates.contains(*name));
    found.map(|name| format!("the tree of {package} holds {name}, but {why}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str =
        "rondo-rounds v0.1.0 (/w/rounds)\nblake3 v1.8.0\nserde v1.0.0 (*)\nserde_derive v1.0.0 (proc-macro)";

    #[test]
    fn a_tree_without_what_is_forbidden_is_sound() {
        assert_eq!(crates(TREE).len(), 4);
        for wall in WALLS {
            assert!(breaches(wall.package, TREE, wall.forbidden, wall.why).is_empty());
        }
    }

    #[test]
    fn every_wall_falls_to_what_it_forbids() {
        for wall in WALLS {
            for planted in wall.forbidden {
                let tree = format!("{TREE}\n{planted} v1.2.3");
                let found = breaches(wall.package, &tree, wall.forbidden, wall.why);
                assert_eq!(found.len(), 1, "{} with {planted}", wall.package);
                assert!(found[0].contains(planted) && found[0].contains(wall.package), "{found:?}");
            }
        }
    }

    #[test]
    fn a_name_that_only_begins_so_is_another_crate() {
        let tree = format!("{TREE}\ntokio-stream v0.1.0\nrustls-pki-types v1.0.0");
        assert!(breaches("rondo-rounds", &tree, NOT_PURE, PURE).is_empty());
    }
}
