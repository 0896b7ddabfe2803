//! The offline commands: what `train` writes, `evaluate` reads.

use std::fs;
use std::path::Path;

use clap::Parser;
use rondo_client::cli::{Cli, Command};
use rondo_client::commands;
use serde_json::Value;

use crate::support::*;

/// Runs a command line and returns what it printed, or the error.
fn run(arguments: &[&str]) -> Result<String, String> {
    let cli = Cli::try_parse_from([&["rondo-client"], arguments].concat()).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    match &cli.command {
        Command::Train(args) => commands::train::train(args, &mut out).map_err(|error| error.to_string())?,
        Command::Evaluate(args) => commands::evaluate::evaluate(args, &mut out).map_err(|error| error.to_string())?,
        Command::Merge(args) => commands::merge::merge(args, &mut out).map_err(|error| error.to_string())?,
        other => panic!("{other:?}"),
    }
    Ok(String::from_utf8(out).unwrap())
}

/// The separable task as a file whose columns and labels have other names than the run's.
fn write_data(path: &Path) {
    let data = separable();
    let rows = [data.train().all().unwrap().into_owned(), data.held_out().all().unwrap().into_owned()].concat();
    let lines: Vec<String> =
        rows.iter().map(|row| format!("{}\t{}", ["neg", "pos"][row.label() as usize], row.text())).collect();
    fs::write(path, format!("mood\treview\n{}\nunclear\tso it is\n", lines.join("\n"))).unwrap();
}

const DATA: [&str; 10] = [
    "--text-column",
    "review",
    "--label-column",
    "mood",
    "--map-label",
    "neg=negative",
    "--map-label",
    "pos=positive",
    "--skip-label",
    "unclear",
];

#[test]
fn what_train_writes_evaluate_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out, model) = (dir.path().join("reviews.tsv"), dir.path().join("adapter"), tiny());
    write_data(&data);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (data, out, model) = (path(&data), path(&out), path(&model));
    let predictions = path(&dir.path().join("predictions.jsonl"));
    let common =
        [&["--model", &model, "--data", &data, "--dataset=tiny", "--device=cpu", "--threads=1"][..], &DATA].concat();
    for method in ["fed-sb", "ffa-lora", "flora"] {
        let wanted =
            ["--method", method, "--rank", "8", "--steps", "160", "--batch", "8", "--lr", "0.02", "--max-tokens", "24"];
        let more = ["--labels", "negative,positive", "--eval-fraction", "0.25", "--out", &out, "--json"];
        let told = run(&[&["train"], &common[..], &wanted, &more].concat()).unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        let accuracy = |when: &str| told[when]["accuracy"].as_f64().unwrap();
        assert!(accuracy("after") > 0.85 && accuracy("after") > accuracy("before"), "{told}");

        let more = ["--adapter", &out, "--held-out", "0.25", "--predictions", &predictions, "--json"];
        let evaluated = run(&[&["evaluate"], &common[..], &more].concat()).unwrap();
        let evaluated: Value = serde_json::from_str(&evaluated).unwrap();
        assert_eq!(evaluated["examples"], told["after"]["examples"]);
        assert_eq!(evaluated["accuracy"], told["after"]["accuracy"]);
        let off = evaluated["loss"].as_f64().unwrap() - told["after"]["loss"].as_f64().unwrap();
        assert!(off.abs() < 1e-5, "{method}: {off}");
        let rows: Vec<Value> =
            fs::read_to_string(&predictions).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len() as u64, evaluated["examples"].as_u64().unwrap());
        let right = rows.iter().filter(|row| row["label"] == row["predicted"]).count();
        assert_eq!(right as f64 / rows.len() as f64, evaluated["accuracy"].as_f64().unwrap());
        assert!(rows.iter().all(|row| row["logits"].as_array().unwrap().len() == 2 && row["text"].is_string()));
    }
    let bare = run(&[&["evaluate"], &common[..], &["--adapter", "none", "--labels", "negative,positive"]].concat());
    assert!(bare.unwrap().contains("on 192 examples"));
}

#[test]
fn other_architectures_train_and_evaluate() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("reviews.tsv"), dir.path().join("adapter"));
    write_data(&data);
    let (data, out) = (data.to_str().unwrap(), out.to_str().unwrap());
    for (model, method, targets) in [
        ("tiny-roberta", "ffa-lora", "query,value"),
        ("tiny-distilbert", "fed-sb", "q_lin,v_lin"),
        ("tiny-gpt2", "fedit", "c_attn,mlp.c_proj"),
    ] {
        let folder = golden(model);
        let common = [
            &["--model", folder.to_str().unwrap(), "--data", data, "--dataset=tiny", "--device=cpu", "--threads=1"][..],
            &DATA,
            &["--json"],
        ]
        .concat();
        let wanted = ["--method", method, "--targets", targets, "--rank=8", "--steps=160", "--batch=8", "--lr=0.02"];
        let more = ["--max-tokens=24", "--labels=negative,positive", "--eval-fraction=0.25", "--out", out];
        let told: Value =
            serde_json::from_str(&run(&[&["train"], &common[..], &wanted, &more].concat()).unwrap()).unwrap();
        let accuracy = |when: &str| told[when]["accuracy"].as_f64().unwrap();
        assert!(accuracy("after") > 0.85 && accuracy("after") > accuracy("before"), "{model}: {told}");
        let more = ["--adapter", out, "--held-out=0.25"];
        let evaluated: Value =
            serde_json::from_str(&run(&[&["evaluate"], &common[..], &more].concat()).unwrap()).unwrap();
        assert_eq!(evaluated["accuracy"], told["after"]["accuracy"], "{model}");
        let off = evaluated["loss"].as_f64().unwrap() - told["after"]["loss"].as_f64().unwrap();
        assert!(off.abs() < 1e-5, "{model}: {off}");
    }
}

/// A merged folder is a base of its own, which says the same as base and adapter did.
#[test]
fn merged_weights_say_what_the_adapter_did() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, adapter) = (path("rows.jsonl"), path("adapter"));
    let rows = ["the film was", "this book is"]
        .map(|prompt| format!("{{\"prompt\": \"{prompt}\", \"completion\": \" very good .\"}}\n"));
    fs::write(&data, rows.concat()).unwrap();
    for (model, targets) in [("tiny-llama", "q_proj,down_proj"), ("tiny-gpt2", "c_attn,mlp.c_fc")] {
        let folder = golden(model).to_str().unwrap().to_owned();
        let of = |model: &str| {
            ["--data", &data, "--task=causal-lm", "--max-tokens=32", "--device=cpu", "--threads=1", "--model", model]
                .map(str::to_owned)
        };
        let call = |command: &str, common: &[String], more: &[&str]| {
            let words: Vec<&str> =
                [command].into_iter().chain(common.iter().map(String::as_str)).chain(more.iter().copied()).collect();
            run(&words)
        };
        let method = [
            "--method=fedit",
            "--rank=4",
            "--steps=4",
            "--batch=2",
            "--lr=0.05",
            "--eval-fraction=0",
            "--targets",
            targets,
            "--out",
            &adapter,
        ];
        call("train", &of(&folder), &method).unwrap();
        let merged = path(&format!("{model}-merged"));
        let merge = |model: &str, out: &str| run(&["merge", "--model", model, "--adapter", &adapter, "--out", out]);
        assert!(merge(&folder, &merged).unwrap().contains("weights changed"));
        assert!(merge(&folder, &merged).unwrap_err().contains("is not empty"));
        let logits = |model: &str, more: &[&str]| {
            let file = path("logits.safetensors");
            call("evaluate", &of(model), &[&["--logits", &file, "--json"], more].concat()).unwrap();
            let file = rondo_methods::TensorFile::open(Path::new(&file)).unwrap();
            (0..2).map(|text| file.read(&format!("texts.{text}.logits")).unwrap()).collect::<Vec<_>>()
        };
        let far = |left: &[rondo_methods::Tensor], right: &[rondo_methods::Tensor]| {
            let pairs = left.iter().zip(right).flat_map(|(left, right)| left.data.iter().zip(&right.data));
            pairs.map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
        };
        let (bare, beside, inside) =
            (logits(&folder, &[]), logits(&folder, &["--adapter", &adapter]), logits(&merged, &[]));
        assert!(beside[0].shape[0] >= 6 && beside[0].shape == inside[0].shape);
        assert!(far(&beside, &inside) < 1e-4 && far(&bare, &beside) > 1e-2, "{model}");
    }
    // The last adapter is GPT-2's.
    let refused = |model: &str| {
        let error = run(&["merge", "--model", model, "--adapter", &adapter, "--out", &path("refused")]).unwrap_err();
        assert!(!Path::new(&path("refused")).exists());
        error
    };
    assert!(
        refused(golden("tiny-llama").to_str().unwrap()).contains("has no linear layer \"transformer.h.0.attn.c_attn\"")
    );
    let folder = golden("tiny-llama").to_str().unwrap().to_owned();
    let words = ["evaluate", "--model", &folder, "--data", &data, "--task=exact-answer", "--logits=never"];
    assert!(run(&words).unwrap_err().contains("--logits belongs to --task causal-lm"));
    assert!(refused(golden("tiny-llama.gguf").to_str().unwrap()).contains("is a GGUF file"));
}

#[test]
fn offline_commands_refuse_what_makes_no_sense() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("reviews.tsv");
    write_data(&data);
    let (data, model, out) = (data.to_str().unwrap(), tiny(), dir.path().join("out"));
    let (model, out) = (model.to_str().unwrap(), out.to_str().unwrap());
    let train = |more: &[&str]| {
        let base = ["train", "--model", model, "--data", data, "--out", out, "--labels", "negative,positive"];
        run(&[&base[..], more].concat()).unwrap_err()
    };
    let named = train(&["--device=cpu", "--max-tokens=24"]);
    assert!(named.contains("missing column `text`"), "{named}");
    let refused = |more: &[&str]| train(&[&DATA[..], &["--device=cpu", "--max-tokens=24"], more].concat());
    assert!(refused(&["--method", "fed-bs"]).contains("did you mean `fed-sb`"));
    assert!(refused(&["--rank", "33"]).contains("1 to 32"));
    assert!(refused(&["--option", "ovresample=3"]).contains("`oversample`"));
    assert!(refused(&["--option", "init=base_svd"]).contains("base-svd"));
    assert!(refused(&["--lr", "nan"]).contains("train.lr"));
    assert!(train(&[&DATA[..], &["--max-tokens=41"]].concat()).contains("40"));
    assert!(refused(&["--eval-fraction", "1"]).contains("--eval-fraction"));
    assert!(train(&[&DATA[..], &["--max-tokens=24", "--device=gpu"]].concat()).contains("cuda:0"));
    let nothing = run(&["evaluate", "--model", model, "--adapter", out, "--data", data]).unwrap_err();
    assert!(nothing.contains("adapter_config.json"), "{nothing}");
}
