//! Gives binaries, tests and benches of this package a run path to libtorch,
//! so that they start without `LD_LIBRARY_PATH`.
//!
//! torch-sys hands over the folder it linked against, however it found it (`LIBTORCH`,
//! `LIBTORCH_LIB`, `LIBTORCH_USE_PYTORCH`, a system install). A run path holds for the targets of
//! one package only: every package that links libtorch into a binary of its own needs this file.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let Some(libtorch) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else {
        return; // built without the feature `torch`
    };
    if std::env::var("CARGO_CFG_TARGET_FAMILY").as_deref() != Ok("unix") {
        return;
    }
    let libtorch = libtorch.to_string_lossy();
    println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}");
    // For installed copies: libtorch beside the binary, or in the usual place next to `bin/`.
    let origin =
        if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos") { "@loader_path" } else { "$ORIGIN" };
    for place in ["libtorch/lib", "../libtorch/lib", "../lib"] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{origin}/{place}");
    }
}
