use clap::{Command, CommandFactory};
use rondo::cli::Cli;

use crate::program::{output_of, rondo};

/// Every command with the words that lead to it.
fn commands(command: &Command, path: &[String], all: &mut Vec<(Vec<String>, Command)>) {
    all.push((path.to_vec(), command.clone()));
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        commands(sub, &[path, &[sub.get_name().to_owned()]].concat(), all);
    }
}

#[test]
fn every_command_has_help_with_an_example_of_itself() {
    let mut root = Cli::command();
    root.build();
    let mut all = Vec::new();
    commands(&root, &[], &mut all);
    assert!(all.len() >= 40, "{} commands", all.len());
    for (path, command) in all {
        let name = format!("rondo {}", path.join(" "));
        let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(example.contains("Example:") && example.contains(name.trim_end()), "{name}: {example:?}");
        assert!(command.get_about().is_some(), "{name} does not say what it does");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name}: {} has no help", argument.get_id());
        }
        assert!(command.get_arguments().any(|argument| argument.get_id() == "json"), "{name} has no --json");
    }
}

#[test]
fn examples_parse() {
    use clap::Parser;
    let mut all = Vec::new();
    commands(&Cli::command(), &[], &mut all);
    for (_, command) in all {
        let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in example.lines().filter_map(|line| line.strip_prefix("  rondo")) {
            let words = std::iter::once("rondo").chain(line.split_whitespace());
            assert!(
                Cli::try_parse_from(words).is_ok(),
                "{line}: {:?}",
                Cli::try_parse_from(line.split_whitespace()).err()
            );
        }
    }
}

#[test]
fn exit_codes_tell_usage_from_failure() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| output_of(&rondo(dir.path(), args));
    for usage in [
        &["frobnicate"][..],
        &[],
        &["run"],
        &["round", "show", "x", "not-a-number"],
        &["token", "create", "--ttl", "soon"],
        &["adapter", "export", "x", "--format", "onnx", "--out", "y"],
        &["adapter", "export", "x", "--format", "merged", "--out", "y"],
        &["adapter", "export", "x", "--format", "peft-native", "--recompress", "2", "--out", "y"],
        &["adapter", "aggregate", "--method", "fedit", "--weights", "1,2", "--out", "o", "a.safetensors"],
        &["adapter", "aggregate", "--method", "fedit", "--weights", "0", "--out", "o", "a.safetensors"],
    ] {
        let (code, out, err) = run(usage);
        assert_eq!((code, out.as_str()), (2, ""), "{usage:?}: {err}");
        assert!(!err.is_empty());
    }
    assert_eq!(run(&["--help"]).0, 0);
    assert_eq!(run(&["run", "watch", "--help"]).0, 0);
    let (code, help, _) = run(&["adapter", "aggregate", "--help"]);
    assert!(code == 0 && help.contains("<target>.<part>") && help.contains("fed-sb: lora_R [r, r]; frozen"), "{help}");
    let (code, out, err) = run(&["run", "list"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("holds no identity") && err.contains("hint: enrol with `rondo join"), "{err}");
    let (code, _, err) = run(&["run", "list", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&err).unwrap();
    assert!(code == 1 && error["error"].is_string() && error["hint"].is_string(), "{err}");
    let (code, out, err) = run(&["doctor"]);
    assert!(code == 1 && out.starts_with("FAIL identity") && err.contains("something is wrong"), "{out}{err}");
}

#[test]
fn methods_are_listed_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, _) = output_of(&rondo(dir.path(), &["method", "list"]));
    assert_eq!(code, 0);
    for id in ["fedit", "ffa-lora", "flora", "fed-sb"] {
        assert!(out.contains(id), "{out}");
    }
    let (code, out, _) = output_of(&rondo(dir.path(), &["method", "show", "fed-sb"]));
    assert!(
        code == 0 && out.contains("[r, r]") && out.contains("gradient-sketch") && out.contains("oversample"),
        "{out}"
    );
    let (_, out, _) = output_of(&rondo(dir.path(), &["method", "show", "fedit"]));
    assert!(out.contains("(alpha / r) lora_B.lora_A"), "{out}");
    let (code, out, _) = output_of(&rondo(dir.path(), &["method", "list", "--json"]));
    let all: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && all["methods"].as_array().is_some_and(|methods| methods.len() >= 4));
    let (code, _, err) = output_of(&rondo(dir.path(), &["method", "show", "fedsb"]));
    assert!(code == 1 && err.contains("did you mean `fed-sb`?"), "{err}");
}
