//! Reads data sets: a `[[dataset]]` table as JSON per line of standard input, an answer per line of
//! standard output.
//!
//! ```text
//! echo '{"name": "x", "path": "rows.csv", "rows": "text"}' | cargo run --package rondo-data --example read_rows
//! ```
#![allow(clippy::print_stdout)] // A program for people at a terminal.

use std::io::stdin;

use rondo_data::{DataError, Dataset, Source, TaskSpec};
use rondo_proto::run_file::{TaskKind, Template};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in stdin().lines() {
        let source: Source = serde_json::from_str(&line?)?;
        let answer = read(&source).unwrap_or_else(|error| json!({ "error": error.to_string() }));
        println!("{answer}");
    }
    Ok(())
}

/// The texts, in the order in which a run takes them.
fn read(source: &Source) -> Result<Value, DataError> {
    let task = TaskSpec { kind: TaskKind::CausalLm, labels: &[], template: Template::Auto };
    let dataset = Dataset::load(source, task, 0)?;
    let mut rows = Vec::new();
    for part in [dataset.held_out(), dataset.train()] {
        rows.extend(part.all()?.iter().map(|example| example.text().to_owned()));
    }
    Ok(json!({ "ok": { "rows": rows, "skipped": dataset.skipped() } }))
}
