//! Reads PEFT folders: a path per line of standard input, an answer per line of standard output.
//!
//! ```text
//! echo adapter | cargo run --package rondo-methods --example read_adapter
//! ```
#![allow(clippy::print_stdout)] // A program for people at a terminal.

use std::io::stdin;
use std::path::Path;

use rondo_methods::MethodError;
use rondo_methods::export::peft;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in stdin().lines() {
        let path = line?;
        let answer = read(Path::new(&path)).unwrap_or_else(|error| json!({ "error": error.to_string() }));
        println!("{answer}");
    }
    Ok(())
}

/// The adapted modules, each with the sum of its change's magnitudes.
fn read(dir: &Path) -> Result<Value, MethodError> {
    let adapter = peft::load(dir)?;
    adapter.check_finite()?;
    let targets = adapter.targets.iter().map(|target| {
        let sum: f64 = target.dense().data().iter().map(|number| number.abs()).sum();
        json!([target.name, sum])
    });
    Ok(json!({ "ok": { "targets": targets.collect::<Vec<_>>() } }))
}
