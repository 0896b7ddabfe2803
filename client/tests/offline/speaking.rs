//! The offline commands on a language model: `train`, `evaluate`, `generate`, `chat`.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use rondo_client::cli::{Cli, Command};
use rondo_client::commands::offline::{self, OfflineCommand};
use serde_json::Value;

use crate::support::*;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

const HERE: [&str; 2] = ["--device=cpu", "--threads=1"];

#[test]
fn generate_says_what_transformers_says() {
    let facts = facts();
    let model = path(&golden("tiny-llama"));
    let adapter = path(&golden("tiny-llama-lora"));
    let prompt = facts["prompts"][0].as_str().unwrap();
    let said = |more: &[&str]| {
        let words = [&["generate", "--model", &model, "--prompt", prompt, "--max-new-tokens", "3"][..], &HERE, more];
        run(&words.concat()).unwrap()
    };
    let tokens = rondo_trainer::text::tokens::Tokens::load(&golden("tiny-llama")).unwrap();
    let golden = |who: &str| {
        let ids = facts[who]["greedy"][0].as_array().unwrap().iter().take(3);
        tokens.text(&ids.map(|id| id.as_i64().unwrap()).collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(said(&[]), format!("{}\n", golden("bare")));
    let adapted = json(&said(&["--adapter", &adapter, "--json"]));
    assert_eq!(adapted["text"], golden("adapted"));
    assert_eq!((adapted["tokens"].as_u64(), adapted["ending"].as_str()), (Some(3), Some("length")));
    assert_eq!(adapted["prompt_tokens"], prompt.len() as u64 + 1);
    let drawn = |seed: &str| said(&["--temperature", "1.5", "--top-p", "0.95", "--top-k", "40", "--seed", seed]);
    assert_eq!(drawn("1"), drawn("1"));
    assert!((2..9).any(|seed| drawn("1") != drawn(&seed.to_string())));
    // A file's last line end is not the prompt's.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prompt.txt");
    fs::write(&file, format!("{prompt}\n")).unwrap();
    let words = ["generate", "--model", &model, "--file", &path(&file), "--max-new-tokens=3"];
    assert_eq!(run(&[&words[..], &HERE].concat()).unwrap(), said(&[]));
}

#[test]
fn chat_keeps_the_conversation_and_obeys_commands() {
    let model = path(&golden("tiny-llama"));
    let dir = tempfile::tempdir().unwrap();
    let saved = path(&dir.path().join("talk.jsonl"));
    let words = ["chat", "--model", &model, "--temperature=0", "--max-new-tokens=2", "--system", "S", "--json"];
    let words = [&words[..], &HERE].concat();
    let input = format!("Hi\nyou\n/save {saved}\n/reset\nHi\n/system\nHi\n/nonsense\n/save\n/quit\nHi\n");
    let output = run_with(&words, &input).unwrap();
    let lines: Vec<&str> = output.lines().collect();
    // With --json every line is an object, whatever it says.
    let objects: Vec<Value> = lines.iter().map(|line| json(line)).collect();
    let answers: Vec<&Value> = objects.iter().filter(|object| object.get("text").is_some()).collect();
    assert_eq!(answers.len(), 4, "{output}");
    assert_eq!(answers[0], answers[2], "/reset keeps the instructions");
    assert!(output.contains("there is no /nonsense") && output.contains("/save takes"), "{output}");
    let row = json(&fs::read_to_string(&saved).unwrap());
    let roles: Vec<&str> = row["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(row["messages"][2]["content"], answers[0]["text"]);
    // The answers are those of `generate`.
    let words = ["generate", "--model", &model, "--chat", "--system", "S", "--prompt", "Hi", "--max-new-tokens=2"];
    let said = run(&[&words[..], &HERE].concat()).unwrap();
    assert_eq!(said.trim_end_matches('\n'), answers[0]["text"].as_str().unwrap());
    // A conversation that fills the context is reported, and goes on after a /reset.
    let long = "x".repeat(80);
    let output = run_with(
        &[&words[1..3], &["--temperature=0", "--max-new-tokens=2"], &HERE].concat().iter().fold(
            vec!["chat"],
            |mut all, word| {
                all.push(word);
                all
            },
        ),
        &format!("{long}\n/reset\nHi\n"),
    )
    .unwrap();
    assert!(output.contains("/reset starts anew") && output.lines().count() >= 2, "{output}");
}

#[test]
fn a_wish_to_stop_ends_the_answer_and_not_the_conversation() {
    let model = path(&golden("tiny-llama"));
    let words = ["rondo-client", "chat", "--model", &model, "--max-new-tokens=40", "--temperature=0", "--device=cpu"];
    let Command::Offline(OfflineCommand::Chat(args)) = Cli::try_parse_from(words).unwrap().command else {
        panic!("no chat")
    };
    /// Wishes to stop as soon as something is said.
    struct Impatient<'s>(Vec<u8>, &'s AtomicBool);
    impl std::io::Write for Impatient<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            self.1.store(true, Ordering::SeqCst);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let stop = AtomicBool::new(false);
    let mut out = Impatient(Vec::new(), &stop);
    offline::chat::chat(&args, &mut Cursor::new(b"Hi\nHo\n".to_vec()), &mut out, &stop).unwrap();
    let output = String::from_utf8_lossy(&out.0).into_owned();
    assert_eq!(output.matches("[...]").count(), 2, "{output}");
    assert!(output.chars().count() < 40, "{output}");
}

#[test]
fn a_language_model_is_trained_and_measured() {
    let dir = tempfile::tempdir().unwrap();
    let data = path(&dir.path().join("rows.jsonl"));
    let out = path(&dir.path().join("adapter"));
    let rows: String = (0..24)
        .map(|n| format!("{{\"prompt\":\"{n} and {n} is\",\"completion\":\" {}\",\"kind\":\"k{}\"}}\n", 2 * n, n % 2))
        .collect();
    fs::write(&data, rows).unwrap();
    let model = path(&golden("tiny-llama"));
    let common = [&["--model", &model, "--data", &data, "--data-option", "group=kind"][..], &HERE].concat();
    let more = ["--task", "exact-answer", "--method", "ffa-lora", "--rank", "4", "--lr", "0.05", "--steps", "12"];
    let size = ["--batch", "6", "--max-new-tokens", "4", "--eval-fraction", "0.25", "--out", &out, "--json"];
    let output = json(&run(&[&["train"], &common[..], &more, &size].concat()).unwrap());
    let loss = |when: &str| output[when]["loss"].as_f64().unwrap();
    assert!(loss("after") < 0.9 * loss("before"), "{output}");

    let predictions = path(&dir.path().join("predictions.jsonl"));
    let held_out = ["--dataset=data", "--held-out=0.25", "--max-new-tokens=4", "--predictions", &predictions, "--json"];
    let evaluate = [&["evaluate", "--task", "exact-answer", "--adapter", &out][..], &common, &held_out].concat();
    let found = json(&run(&evaluate).unwrap());
    assert_eq!(found["examples"], output["after"]["examples"]);
    assert!((found["loss"].as_f64().unwrap() - loss("after")).abs() < 1e-4, "{found} {output}");
    assert_eq!(found["groups"], output["after"]["groups"]);
    let rows = fs::read_to_string(&predictions).unwrap();
    assert_eq!(rows.lines().count() as u64, found["examples"].as_u64().unwrap());
    for row in rows.lines().map(json) {
        assert!(row["generated"].is_string() && row["expected"].is_string() && row["group"].is_string(), "{row}");
        assert_eq!(row["right"].as_bool().unwrap(), row["answer"] == row["expected"], "{row}");
    }
    let bare = [&["evaluate", "--task", "causal-lm", "--limit", "5"][..], &common].concat();
    let bare = run(&bare).unwrap();
    assert!(bare.contains("perplexity") && bare.contains("on 5 examples") && bare.contains("k1"), "{bare}");
}

#[test]
fn what_cannot_speak_is_refused_by_name() {
    let model = path(&golden("tiny-llama"));
    let encoder = path(&tiny());
    let generate = |more: &[&str]| run(&[&["generate", "--device=cpu", "--prompt", "Hi"], more].concat()).unwrap_err();
    let here = |more: &[&str]| generate(&[&["--model", &model], more].concat());
    assert!(here(&["--adapter", "nowhere"]).contains("no adapter in nowhere"));
    assert!(here(&["--top-p", "0"]).contains("--top-p is 0"));
    assert!(here(&["--temperature=-1"]).contains("--temperature is -1"));
    assert!(here(&["--system", "S"]).contains("--chat"));
    assert!(generate(&["--model", &encoder]).contains("vocabulary"));
    let long = "x".repeat(70);
    let words = ["generate", "--device=cpu", "--model", &model, "--prompt", &long];
    let too_long = run(&words).unwrap_err();
    assert!(too_long.contains("71 tokens") && too_long.contains("63"), "{too_long}");

    // An adapter of another base: one target's factor has another size.
    let dir = tempfile::tempdir().unwrap();
    let other = path(dir.path());
    let model_dir = dir.path().join("model");
    fs::create_dir(&model_dir).unwrap();
    let adapter = golden("tiny-llama-lora");
    fs::copy(adapter.join("adapter_model.safetensors"), dir.path().join("adapter_model.safetensors")).unwrap();
    let config = fs::read_to_string(adapter.join("adapter_config.json")).unwrap();
    fs::write(dir.path().join("adapter_config.json"), config.replace("\"tiny-llama\"", "\"another\"")).unwrap();
    let bert = run(&[
        "evaluate",
        "--task=classification",
        "--device=cpu",
        "--model",
        &encoder,
        "--adapter",
        &other,
        "--data",
        "rows.jsonl",
        "--labels",
        "a,b",
    ])
    .unwrap_err();
    assert!(bert.contains("no classifier head"), "{bert}");
    let tiny = path(&golden("tiny-qwen3"));
    fs::copy(golden("tiny-llama/tokenizer.json"), model_dir.join("tokenizer.json")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(Path::new(&tiny).join(file), model_dir.join(file)).unwrap();
    }
    let misfit = generate(&["--model", &path(&model_dir), "--adapter", &other]);
    assert!(misfit.contains("does not fit the model") && misfit.contains("\"another\""), "{misfit}");

    let no_task = run(&["evaluate", "--device=cpu", "--model", &model, "--data", "rows.jsonl"]).unwrap_err();
    assert!(no_task.contains("--task"), "{no_task}");
    let data = path(&dir.path().join("rows.jsonl"));
    fs::write(&data, "{\"text\":\"a\"}\n").unwrap();
    let words = ["evaluate", "--device=cpu", "--model", &model, "--task=causal-lm", "--data", &data];
    let option = run(&[&words[..], &["--data-option", "grop=x"]].concat()).unwrap_err();
    assert!(option.contains("\"grop\" is no key"), "{option}");
    let labels = run(&[&words[..], &["--labels", "a,b"]].concat()).unwrap_err();
    assert!(labels.contains("--labels belongs"), "{labels}");
}
