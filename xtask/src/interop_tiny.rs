//! Every method on tiny random models of every way that names and
//! weights lie: trained, exported and merged offline.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cargo::Binaries;
use crate::interop_case::Case;
use crate::paths::Paths;
use crate::process;

/// A model among the client's golden files, the layers to adapt, and what it is asked.
struct Tiny {
    model: &'static str,
    targets: &'static str,
    task: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Language,
    Classification,
}

/// GPT-2 keeps its weights as [in, out] and has them under a name
/// of its own; RoBERTa counts positions from two.
const MODELS: [Tiny; 3] = [
    Tiny { model: "tiny-llama", targets: "q_proj,v_proj,gate_proj,down_proj", task: Kind::Language },
    Tiny { model: "tiny-gpt2", targets: "c_attn,mlp.c_fc,mlp.c_proj", task: Kind::Language },
    Tiny { model: "tiny-roberta", targets: "query,value,output.dense", task: Kind::Classification },
];

const TRAINING: [&str; 9] = [
    "--rank=4",
    "--steps=6",
    "--batch=4",
    "--lr=0.02",
    "--eval-fraction=0",
    "--max-tokens=36",
    "--device=cpu",
    "--threads=1",
    "--json",
];

/// Words that all the models' vocabularies spell.
const SUBJECTS: [&str; 4] = ["the film was", "this book is", "the story", "we were"];
const VERDICTS: [(&str, &str); 4] = [
    ("good", "very good and happy ."),
    ("bad", "dull , sad and boring ."),
    ("good", "a great day !"),
    ("bad", "poor ?"),
];

#[derive(Deserialize)]
struct MethodRow {
    id: String,
}

/// Trains, exports and merges; what there is to compare.
pub(crate) fn cases(paths: &Paths, binaries: &Binaries, work: &Path) -> Result<Vec<Case>> {
    let methods: Vec<MethodRow> = methods(binaries)?;
    let data = data(work)?;
    let each = std::thread::scope(|scope| {
        let threads: Vec<_> = MODELS
            .iter()
            .map(|tiny| {
                let methods = &methods;
                let data = &data;
                let client = &binaries.client;
                let model = paths.workspace.join("trainer/tests/goldens").join(tiny.model);
                scope.spawn(move || -> Result<Vec<Case>> {
                    let cases = methods.iter().map(|method| case(client, tiny, &model, &method.id, data, work));
                    cases.collect()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread of the comparison ended early"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    Ok(each.into_iter().flatten().collect())
}

/// The registered methods, by the program's own list.
fn methods(binaries: &Binaries) -> Result<Vec<MethodRow>> {
    let list: serde_json::Value = process::json(Command::new(&binaries.rondo).args(["method", "list", "--json"]))?;
    let rows = list.get("methods").cloned().unwrap_or(list);
    let rows: Vec<MethodRow> = serde_json::from_value(rows).context("`rondo method list --json` has another shape")?;
    anyhow::ensure!(!rows.is_empty(), "`rondo method list` knows no methods");
    Ok(rows)
}

/// Rows for both tasks: completions, and texts with a label.
fn data(work: &Path) -> Result<(PathBuf, PathBuf)> {
    let completions = work.join("completions.jsonl");
    let reviews = work.join("reviews.tsv");
    let mut lines = String::new();
    let mut table = String::from("text\tlabel\n");
    for subject in SUBJECTS {
        for (label, verdict) in VERDICTS {
            lines += &format!("{}\n", serde_json::json!({ "prompt": subject, "completion": format!(" {verdict}") }));
            table += &format!("{subject} {verdict}\t{label}\n");
        }
    }
    std::fs::write(&completions, lines).with_context(|| format!("cannot write {}", completions.display()))?;
    std::fs::write(&reviews, table).with_context(|| format!("cannot write {}", reviews.display()))?;
    Ok((completions, reviews))
}

fn case(
    client: &Path,
    tiny: &Tiny,
    model: &Path,
    method: &str,
    (completions, reviews): &(PathBuf, PathBuf),
    work: &Path,
) -> Result<Case> {
    let name = format!("{} {method}", tiny.model);
    let folder = work.join(tiny.model).join(method);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let adapter = folder.join("adapter");
    let merged = folder.join("merged");
    let (data, task, expected) = match tiny.task {
        Kind::Language => (completions, ["--task", "causal-lm"], folder.join("logits.safetensors")),
        Kind::Classification => (reviews, ["--labels", "good,bad"], folder.join("predictions.jsonl")),
    };
    let command = |subcommand: &str| {
        let mut command = Command::new(client);
        command.arg(subcommand).arg("--model").arg(model);
        command
    };
    let mut train = command("train");
    train.arg("--data").arg(data).args(task).args(["--method", method, "--targets", tiny.targets]).args(TRAINING);
    process::output(train.arg("--out").arg(&adapter))?;
    let mut evaluate = command("evaluate");
    evaluate.arg("--adapter").arg(&adapter).arg("--data").arg(data).args(task).args(["--device=cpu", "--threads=1"]);
    evaluate.args(["--limit=8", "--max-tokens=36", "--json"]);
    evaluate.arg(if tiny.task == Kind::Language { "--logits" } else { "--predictions" }).arg(&expected);
    process::output(&mut evaluate)?;
    process::output(command("merge").arg("--adapter").arg(&adapter).arg("--out").arg(&merged).arg("--json"))?;
    Ok(Case { name, model: model.to_owned(), adapter, expected, merged: Some(merged) })
}
