//! Tiny models and data that the tests share.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use clap::Parser;
use rondo_client::cli::{Cli, Command};
use rondo_client::commands::offline::{self, OfflineCommand};
use rondo_data::Dataset;

/// A file among the trainer's goldens.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/goldens").join(name)
}

/// The tiny encoder's folder.
pub(crate) fn tiny() -> PathBuf {
    golden("tiny-bert")
}

/// Sentences of which one word says the label.
pub(crate) fn separable() -> Dataset {
    let words = [["bad", "awful", "poor", "ugly"], ["good", "great", "fine", "lovely"]];
    let things = ["film", "movie", "book", "phone", "food", "service"];
    let frames = ["the {t} was {w}", "a {w} {t} !", "i was with the {t} for a day and it is so {w} .", "{w} {t}"];
    let mut rows = Vec::new();
    for (label, words) in words.iter().enumerate() {
        for word in words {
            for thing in things {
                for frame in frames {
                    rows.push((frame.replace("{t}", thing).replace("{w}", word), label as u32));
                }
            }
        }
    }
    Dataset::of("tiny", &["negative".to_owned(), "positive".to_owned()], rows, 0.25)
}

/// What transformers made of the tiny language model, bare and adapted (goldens/make_tasks.py).
pub(crate) fn facts() -> serde_json::Value {
    serde_json::from_slice(&fs::read(golden("tasks.json")).unwrap()).unwrap()
}

/// Runs a command line with an input and returns what it printed,
/// or the error in the words that `main` gives it.
pub(crate) fn run_with(arguments: &[&str], input: &str) -> Result<String, String> {
    let cli = Cli::try_parse_from([&["rondo-client"], arguments].concat()).map_err(|error| error.to_string())?;
    let Command::Offline(command) = &cli.command else { panic!("{:?}", cli.command) };
    cli.command.wording().scope(|| carry_out(command, input))
}

/// [`run_with`] without an input.
pub(crate) fn run(arguments: &[&str]) -> Result<String, String> {
    run_with(arguments, "")
}

fn carry_out(command: &OfflineCommand, input: &str) -> Result<String, String> {
    let mut out = Vec::new();
    let done = match command {
        OfflineCommand::Train(args) => offline::train::train(args, &mut out),
        OfflineCommand::Evaluate(args) => offline::evaluate::evaluate(args, &mut out),
        OfflineCommand::Generate(args) => offline::generate::generate(args, &mut out),
        OfflineCommand::Merge(args) => offline::merge::merge(args, &mut out),
        OfflineCommand::Chat(args) => {
            offline::chat::chat(args, &mut Cursor::new(input.as_bytes()), &mut out, &AtomicBool::new(false))
        }
        OfflineCommand::Plan(args) => offline::plan::plan(args, &mut out),
    };
    done.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}
