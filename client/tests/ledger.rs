//! `rondo-client ledger` from outside: the account, the
//! entries, and files that are not what was written.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use std::fs;
use std::path::Path;
use std::process::Command;

use rondo_dp::{ExamplePlan, Ledger, Limit, Privacy, Schedule, Terms};
use serde_json::Value;

/// Runs the command; answers exit code, standard output and standard error.
fn ledger(dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rondo-client"));
    let output = command.arg("ledger").arg("--dir").arg(dir).args(more).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn json(dir: &Path, more: &[&str]) -> Value {
    let (code, out, err) = ledger(dir, &[&["--json"], more].concat());
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

/// Two runs in a domain with a budget, of which one is over, and one in a domain without.
fn write(dir: &Path) -> Ledger {
    let plan = |delta| {
        let terms = Terms { noise_multiplier: Some(2.0), ..Terms::new(3.0, delta, 1.0) };
        let promise = Privacy::new("example", terms).unwrap();
        ExamplePlan::new(&promise, 2000, Schedule { batch: 64, steps: 10, rounds: 4 }).unwrap()
    };
    let mut ledger = Ledger::open(&dir.join("ledger.jsonl")).unwrap();
    let budget = Some(Limit::new(6.0, 1e-5).unwrap());
    ledger.reserve("topics-1", "reviews", &plan(1e-5), budget, 1_700_000_000_000).unwrap();
    ledger.spend("topics-1", 1, "blake3:one", 1_700_000_060_000).unwrap();
    ledger.close("topics-1", 1_700_000_120_000).unwrap();
    ledger.reserve("topics-2", "reviews", &plan(1e-5), budget, 1_700_000_180_000).unwrap();
    ledger.spend("topics-2", 1, "blake3:two", 1_700_000_240_000).unwrap();
    ledger.spend("topics-2", 2, "blake3:three", 1_700_000_300_000).unwrap();
    ledger.reserve("notes-1", "notes", &plan(1e-6), None, 1_700_000_360_000).unwrap();
    ledger
}

#[test]
fn the_account_is_what_the_entries_add_up_to_while_the_daemon_has_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let open = write(dir.path());
    let report = json(dir.path(), &[]);
    assert_eq!((report["entries"].as_u64(), report["head"].as_str()), (Some(7), Some(&*open.head().to_string())));
    assert!(report["history"].is_null());
    let run = |at: usize| &report["runs"][at];
    assert_eq!([run(0), run(1), run(2)].map(|run| run["run"].as_str().unwrap()), ["notes-1", "topics-1", "topics-2"]);
    assert_eq!([run(0), run(1), run(2)].map(|run| run["open"].as_bool().unwrap()), [true, false, true]);
    assert_eq!(run(2)["released"], serde_json::json!([1, 2]));
    assert_eq!((run(2)["plan"]["rounds"].as_u64(), run(2)["plan"]["noise_multiplier"].as_f64()), (Some(4), Some(2.0)));
    let state = open.state();
    let spent = state.runs["topics-2"].released.epsilon_enforced(1e-5).unwrap();
    assert_eq!(run(2)["epsilon"].as_f64(), Some(spent));

    let notes = &report["domains"][0];
    let reviews = &report["domains"][1];
    let budget = state.domains["reviews"].budget.unwrap();
    assert_eq!(reviews["budget"]["order"].as_f64(), Some(budget.order));
    let cost = |name: &str| reviews["costs"][0][name].as_f64().unwrap();
    let released = budget.cost(&state.domains["reviews"].released.curve()).unwrap();
    assert!((cost("spent") - released).abs() < 1e-9, "{reviews}");
    assert_eq!(cost("with_set_aside"), budget.cost(&state.committed("reviews").unwrap()).unwrap());
    assert!(cost("spent") < cost("with_set_aside"));
    assert!(notes["budget"].is_null() && notes["costs"][0]["spent"] == 0.0 && notes["costs"][0]["delta"] == 1e-6);

    let (code, text, _) = ledger(dir.path(), &[]);
    assert_eq!(code, Some(0));
    for words in
        ["domain reviews\n  budget  epsilon 6 at delta 1e-5, held at order", "budget  none", "closed", "of 3", "head"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("blake3:one"));
}

#[test]
fn entries_are_listed_with_times_and_heads() {
    let dir = tempfile::tempdir().unwrap();
    let heads: Vec<String> = {
        write(dir.path());
        let read = Ledger::read(&dir.path().join("ledger.jsonl")).unwrap();
        read.entries.iter().map(|(_, head)| head.to_string()).collect()
    };
    let report = json(dir.path(), &["--entries"]);
    let history = report["history"].as_array().unwrap();
    assert_eq!(history.iter().map(|entry| entry["head"].as_str().unwrap()).collect::<Vec<_>>(), heads);
    assert_eq!(
        (&history[1]["kind"], &history[1]["number"], &history[1]["round"]),
        (&"spend".into(), &2.into(), &1.into())
    );
    let (_, text, _) = ledger(dir.path(), &["--entries"]);
    assert!(text.contains("2  2023-11-14 22:14:20 UTC  released for run topics-1, round 1: blake3:one\n"), "{text}");
    assert!(heads.iter().all(|head| text.contains(&format!("head {head}\n"))), "{text}");
}

#[test]
fn an_edited_file_is_refused_by_line_one_that_lost_entries_too_and_a_torn_last_line_is_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.jsonl");
    drop(write(dir.path()));
    let (_, head) = Ledger::read(&path).unwrap().entries[5].clone();
    let head_of_six = format!("6 {head}\n");
    let sound = fs::read_to_string(&path).unwrap();
    // Said to be another round than was entered.
    fs::write(&path, sound.replacen("\"round\":2", "\"round\":1", 1)).unwrap();
    let (code, out, err) = ledger(dir.path(), &[]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("the privacy ledger was changed: line 6:"), "{err}");
    let dropped: String =
        sound.split_inclusive('\n').enumerate().filter(|(at, _)| *at != 1).map(|(_, line)| line).collect();
    fs::write(&path, dropped).unwrap();
    assert!(ledger(dir.path(), &["--json"]).2.contains("line 2: it says that it is entry 3"));

    let torn = &sound[..sound.len() - 20];
    fs::write(&path, torn).unwrap();
    let (code, out, err) = ledger(dir.path(), &[]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "the last entry was answered for, and is gone");
    assert!(err.contains("has lost entries: it has 6, and 7 were entered") && err.contains("newest copy"), "{err}");
    fs::remove_file(&path).unwrap();
    assert!(ledger(dir.path(), &[]).2.contains("is not there, and 7 entries were made in it"));
    // As a crash leaves it: the entry was never answered for.
    fs::write(&path, torn).unwrap();
    fs::write(dir.path().join("ledger.head"), head_of_six).unwrap();
    let report = json(dir.path(), &["--entries"]);
    assert_eq!((report["entries"].as_u64(), report["history"].as_array().unwrap().len()), (Some(6), 6));
    assert_eq!(fs::read_to_string(&path).unwrap(), torn, "it is read, and nothing else");
}

#[test]
fn a_coordinators_ledger_is_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut open = Ledger::open(&dir.path().join("ledger.jsonl")).unwrap();
    let event = rondo_dp::Event::new(2.0, 1.0, 1).unwrap();
    open.release("topics-1", "reviews", (1, 1), event, 1_700_000_000_000).unwrap();
    open.release("topics-1", "reviews", (1, 2), event, 1_700_000_060_000).unwrap();
    let report = json(dir.path(), &[]);
    assert_eq!(report["central"][0]["releases"], serde_json::json!([[1, 1], [1, 2]]));
    assert_eq!(report["head"].as_str(), Some(&*open.head().to_string()));
    let (code, text, _) = ledger(dir.path(), &["--entries"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("released 2 times by the coordinator, in run topics-1\n"), "{text}");
    assert!(text.contains("noised sum released in domain reviews for run topics-1, round 1, attempt 2"), "{text}");
    assert!(!text.contains("RUN "), "no table of runs that are none: {text}");
}

#[test]
fn without_a_ledger_nothing_was_promised() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("identity.toml"), "").unwrap();
    let (code, text, _) = ledger(dir.path(), &["--entries"]);
    assert!(code == Some(0) && text.starts_with("nothing was ever promised here"), "{text}");
    let report = json(dir.path(), &[]);
    assert_eq!(
        (&report["entries"], &report["domains"], &report["runs"]),
        (&0.into(), &Value::Array(vec![]), &Value::Array(vec![]))
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is made");
    let (code, _, err) = ledger(&dir.path().join("elsewhere"), &[]);
    assert!(code == Some(1) && err.contains("is not there") && err.contains("rondo-client join"), "{err}");
    assert_eq!(ledger(dir.path(), &["--frobnicate"]).0, Some(2));
}

#[test]
fn a_folder_of_no_client_is_refused_and_a_ledger_is_not_joined_over() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = ledger(dir.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("the folder of no client") && err.contains(&dir.path().display().to_string()), "{err}");
    fs::write(dir.path().join("identity.toml"), "").unwrap();
    assert_eq!(ledger(dir.path(), &[]).0, Some(0), "a client that has spent nothing");

    fs::remove_file(dir.path().join("identity.toml")).unwrap();
    drop(write(dir.path()));
    let join = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rondo-client"));
        let fingerprint = "00".repeat(32);
        command.args(["join", "https://127.0.0.1:9", "--token", "t", "--ca-fingerprint", &fingerprint, "--dir"]);
        let output = command.arg(dir.path()).args(more).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = join(&[]);
    assert!(said.contains("holds a privacy ledger") && said.contains("--keep-ledger"), "{said}");
    let said = join(&["--keep-ledger"]);
    assert!(!said.contains("holds a privacy ledger") && said.contains("connect"), "{said}");
}
