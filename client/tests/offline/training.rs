//! The offline commands: what `train` writes, `evaluate` reads.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::*;

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
    let data = dir.path().join("reviews.tsv");
    let model = tiny();
    write_data(&data);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let data = path(&data);
    let model = path(&model);
    let predictions = path(&dir.path().join("predictions.jsonl"));
    let common =
        [&["--model", &model, "--data", &data, "--dataset=tiny", "--device=cpu", "--threads=1"][..], &DATA].concat();
    for method in ["fed-sb", "ffa-lora", "flora"] {
        let out = path(&dir.path().join(method));
        let wanted =
            ["--method", method, "--rank", "8", "--steps", "160", "--batch", "8", "--lr", "0.02", "--max-tokens", "24"];
        let more = ["--labels", "negative,positive", "--eval-fraction", "0.25", "--out", &out, "--json"];
        let report = run(&[&["train"], &common[..], &wanted, &more].concat()).unwrap();
        let report: Value = serde_json::from_str(&report).unwrap();
        let accuracy = |when: &str| report[when]["accuracy"].as_f64().unwrap();
        assert!(accuracy("after") > 0.85 && accuracy("after") > accuracy("before"), "{report}");
        assert_eq!(report["warm_up_seconds"].is_f64(), method == "fed-sb", "{report}");

        let more = ["--adapter", &out, "--held-out", "0.25", "--predictions", &predictions, "--json"];
        let evaluated = run(&[&["evaluate"], &common[..], &more].concat()).unwrap();
        let evaluated: Value = serde_json::from_str(&evaluated).unwrap();
        assert_eq!(evaluated["examples"], report["after"]["examples"]);
        assert_eq!(evaluated["accuracy"], report["after"]["accuracy"]);
        let off = evaluated["loss"].as_f64().unwrap() - report["after"]["loss"].as_f64().unwrap();
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
    let data = dir.path().join("reviews.tsv");
    write_data(&data);
    let data = data.to_str().unwrap();
    for (model, method, targets) in [
        ("tiny-roberta", "ffa-lora", "query,value"),
        ("tiny-distilbert", "fed-sb", "q_lin,v_lin"),
        ("tiny-gpt2", "fedit", "c_attn,mlp.c_proj"),
    ] {
        let folder = golden(model);
        let out = dir.path().join(model);
        let out = out.to_str().unwrap();
        let common = [
            &["--model", folder.to_str().unwrap(), "--data", data, "--dataset=tiny", "--device=cpu", "--threads=1"][..],
            &DATA,
            &["--json"],
        ]
        .concat();
        let wanted = ["--method", method, "--targets", targets, "--rank=8", "--steps=160", "--batch=8", "--lr=0.02"];
        let more = ["--max-tokens=24", "--labels=negative,positive", "--eval-fraction=0.25", "--out", out];
        let report: Value =
            serde_json::from_str(&run(&[&["train"], &common[..], &wanted, &more].concat()).unwrap()).unwrap();
        let accuracy = |when: &str| report[when]["accuracy"].as_f64().unwrap();
        assert!(accuracy("after") > 0.85 && accuracy("after") > accuracy("before"), "{model}: {report}");
        let more = ["--adapter", out, "--held-out=0.25"];
        let evaluated: Value =
            serde_json::from_str(&run(&[&["evaluate"], &common[..], &more].concat()).unwrap()).unwrap();
        assert_eq!(evaluated["accuracy"], report["after"]["accuracy"], "{model}");
        let off = evaluated["loss"].as_f64().unwrap() - report["after"]["loss"].as_f64().unwrap();
        assert!(off.abs() < 1e-5, "{model}: {off}");
    }
}

/// A merged folder is a base of its own, which says the same as base and adapter did.
#[test]
fn merged_weights_say_what_the_adapter_did() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = path("rows.jsonl");
    let rows = ["the film was", "this book is"]
        .map(|prompt| format!("{{\"prompt\": \"{prompt}\", \"completion\": \" very good .\"}}\n"));
    fs::write(&data, rows.concat()).unwrap();
    for (model, targets) in [("tiny-llama", "q_proj,down_proj"), ("tiny-gpt2", "c_attn,mlp.c_fc")] {
        let folder = golden(model).to_str().unwrap().to_owned();
        let adapter = path(model);
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
        let bare = logits(&folder, &[]);
        let beside = logits(&folder, &["--adapter", &adapter]);
        let inside = logits(&merged, &[]);
        assert!(beside[0].shape[0] >= 6 && beside[0].shape == inside[0].shape);
        assert!(far(&beside, &inside) < 1e-4 && far(&bare, &beside) > 1e-2, "{model}");
    }
    let adapter = path("tiny-gpt2");
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
    let data = data.to_str().unwrap();
    let model = tiny();
    let out = dir.path().join("out");
    let model = model.to_str().unwrap();
    let out = out.to_str().unwrap();
    let train = |more: &[&str]| {
        let base = ["train", "--model", model, "--data", data, "--out", out, "--labels", "negative,positive"];
        run(&[&base[..], more].concat()).unwrap_err()
    };
    let named = train(&["--device=cpu", "--max-tokens=24"]);
    assert!(named.contains("missing column `text`") && named.contains("with --text-column"), "{named}");
    let refused = |more: &[&str]| train(&[&DATA[..], &["--device=cpu", "--max-tokens=24"], more].concat());
    assert!(refused(&["--method", "fed-bs"]).contains("did you mean `fed-sb`"));
    assert!(refused(&["--rank", "33"]).contains("1 to 32"));
    assert!(refused(&["--rank", "33"]).ends_with("lower --rank"));
    assert!(refused(&["--option", "ovresample=3"]).contains("`oversample`"));
    assert!(refused(&["--option", "init=base_svd"]).contains("base-svd"));
    assert!(refused(&["--lr", "nan"]).starts_with("--lr is NaN"));
    assert!(train(&[&DATA[..], &["--max-tokens=41"]].concat()).contains("40"));
    assert!(refused(&["--eval-fraction", "1"]).contains("--eval-fraction"));
    assert!(train(&[&DATA[..], &["--max-tokens=24", "--device=gpu"]].concat()).contains("cuda:0"));
    let nothing = run(&["evaluate", "--model", model, "--adapter", out, "--data", data]).unwrap_err();
    assert!(nothing.contains("adapter_config.json"), "{nothing}");
}

/// A classifier's head lies beside merged weights: the folder is a base
/// all the same, and says what the adapter said.
#[test]
fn a_merged_classifier_is_a_base_with_a_head() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = path("reviews.tsv");
    let adapter = path("adapter");
    let merged = path("merged");
    write_data(Path::new(&data));
    // A program's own notes on the folder are not the model's.
    let folder = dir.path().join("base");
    fs::create_dir(&folder).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(tiny().join(file), folder.join(file)).unwrap();
    }
    fs::write(folder.join(".rondo-setup"), "1").unwrap();
    let folder = folder.to_str().unwrap();
    let common = [&["--data", &data, "--dataset=tiny", "--device=cpu", "--threads=1", "--json"][..], &DATA].concat();
    let train = |model: &str, out: &str| {
        let wanted = ["--method=ffa-lora", "--rank=8", "--steps=80", "--batch=8", "--lr=0.02", "--max-tokens=24"];
        let more = ["--labels=negative,positive", "--eval-fraction=0.25", "--model", model, "--out", out];
        run(&[&["train"], &common[..], &wanted, &more].concat())
    };
    let report: Value = serde_json::from_str(&train(folder, &adapter).unwrap()).unwrap();
    run(&["merge", "--model", folder, "--adapter", &adapter, "--out", &merged]).unwrap();
    assert!(!Path::new(&merged).join(".rondo-setup").exists());

    let base = rondo_base::describe(Path::new(&merged), "merged").unwrap();
    assert!(base.files.iter().all(|file| file.name != rondo_base::HEAD_FILE), "{:?}", base.files);
    let sizes = rondo_trainer_api::memory::ModelSizes::read(Path::new(&merged)).unwrap();
    assert!(sizes.tensors.iter().all(|tensor| !tensor.name.starts_with("head.")));

    let evaluate =
        |more: &[&str]| run(&[&["evaluate", "--held-out=0.25", "--model", &merged], &common[..], more].concat());
    let evaluated: Value = serde_json::from_str(&evaluate(&[]).unwrap()).unwrap();
    assert_eq!(evaluated["accuracy"], report["after"]["accuracy"]);
    assert_eq!(evaluated["labels"], serde_json::json!(["negative", "positive"]));
    let other = evaluate(&["--labels=positive,negative"]).unwrap_err();
    assert!(other.contains("the head beside the model has negative,positive"), "{other}");
    train(&merged, &path("second")).unwrap();
}

#[test]
fn an_adapter_of_a_smaller_base_is_reported_as_that() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = path("reviews.tsv");
    let adapter = path("adapter");
    let model = tiny();
    write_data(Path::new(&data));
    let common = [&["--model", model.to_str().unwrap(), "--data", &data, "--device=cpu", "--threads=1"][..], &DATA];
    let common = common.concat();
    let more = ["--method=fedit", "--rank=2", "--steps=1", "--labels=negative,positive", "--out", &adapter];
    run(&[&["train"], &common[..], &["--max-tokens=24"], &more].concat()).unwrap();
    let head = Path::new(&adapter).join("rondo_head.safetensors");
    let file = rondo_methods::TensorFile::open(&head).unwrap();
    let mut tensors = file.read_all(|_| true).unwrap();
    let metadata = file.metadata().clone();
    tensors.insert("head.weight".to_owned(), rondo_methods::Tensor::zeros(&[2, 16]));
    rondo_methods::file::write(&head, &tensors, rondo_proto::run_file::Dtype::F32, &metadata).unwrap();
    let error = run(&[&["evaluate", "--adapter", &adapter], &common[..]].concat()).unwrap_err();
    assert!(error.contains("does not fit the model in") && error.contains("it was made for \"tiny-bert\""), "{error}");
}

#[test]
fn a_folder_in_use_is_refused_before_the_training() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("adapter");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("kept.txt"), "kept").unwrap();
    // Neither the model nor the data is there: the folder is looked at first.
    let train = |out: &Path| {
        run(&["train", "--model=nowhere", "--data=none.tsv", "--labels=a,b", "--out", out.to_str().unwrap()])
            .unwrap_err()
    };
    assert!(train(&out).contains("is not empty"), "{}", train(&out));
    assert!(train(&out.join("kept.txt")).contains("is a file"));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn advice_is_in_the_words_of_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = path("reviews.tsv");
    let out = path("out");
    let rows = path("rows.jsonl");
    write_data(Path::new(&data));
    fs::write(&rows, "{\"prompt\": \"the film was\", \"completion\": \" good\"}\n").unwrap();
    let model = golden("tiny-llama");
    let model = model.to_str().unwrap();
    let refused = |words: &[&str]| {
        let error = run(&[words, &["--device=cpu", "--model", model]].concat()).unwrap_err();
        for key in ["client.toml", "[[dataset]]", "task.", "method.", "train.", "run file"] {
            assert!(!error.contains(key), "{error}");
        }
        error
    };
    // Without a kind or labels nothing is asked of the data yet.
    let train = ["train", "--data", &rows, "--out", &out];
    let both = "--task is needed: classification (with --labels), causal-lm";
    assert!(refused(&train).contains(both));
    assert!(refused(&["evaluate", "--data", &rows]).contains(both));
    assert!(refused(&[&train[..], &["--task=classification"]].concat()).contains("--labels is needed"));
    let causal = [&train[..], &["--task=causal-lm", "--max-tokens=32", "--targets=q_proj"]].concat();
    let misspelt = refused(&[&causal[..], &["--text-column=nosuch"]].concat());
    assert!(misspelt.contains("missing column `nosuch`; there are `completion`, `prompt`"), "{misspelt}");
    let gpt2 = golden("tiny-gpt2");
    let of_gpt2 = ["--device=cpu", "--model", gpt2.to_str().unwrap()];
    let chat = ["--task=causal-lm", "--max-tokens=32", "--template=chat", "--eval-fraction=0", "--targets=c_attn"];
    let chat = run(&[&train[..], &chat, &of_gpt2].concat()).unwrap_err();
    assert!(chat.contains("give --template plain") && !chat.contains("task."), "{chat}");
    let generate = run(&[&["generate", "--chat", "--prompt=Hi"], &of_gpt2[..]].concat()).unwrap_err();
    assert!(generate.contains("has no chat template") && generate.contains("leave --chat out"), "{generate}");
    let nowhere =
        run(&["evaluate", "--task=causal-lm", "--data", &rows, "--model=nowhere", "--device=cpu"]).unwrap_err();
    assert!(nowhere.contains("nowhere/config.json is not there; a base is a folder with"), "{nowhere}");
    let missing = refused(&["evaluate", "--task=causal-lm", "--data=none.jsonl"]);
    assert!(missing.contains("none.jsonl is not there; name the right one with --data"), "{missing}");
    let exact = refused(&["evaluate", "--task=exact-answer", "--data", &data]);
    assert!(exact.contains("that an exact-answer run can use") && exact.contains("--data-option"), "{exact}");
    let label = refused(&["evaluate", "--data", &data, "--text-column=review", "--label-column=mood", "--labels=a,b"]);
    assert!(label.contains("with --map-label") && label.contains("--skip-label LABEL"), "{label}");
}
