//! Runs that wait for a person, through restarts and changes of their terms.

use rondo_client::commands::approve::{ApproveArgs, approve};
use rondo_client::commands::decline::{DeclineArgs, decline};
use rondo_proto::v1;

use crate::machine::Machine;

fn waiting(machine: &Machine) -> Vec<String> {
    let args = ApproveArgs { run: None, dir: machine.dir.path().to_owned(), json: true };
    let mut out = Vec::new();
    approve(&args, &mut out).unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&out).unwrap();
    listed["waiting"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap().to_owned()).collect()
}

fn say(machine: &Machine, run: &str, yes: bool) {
    let dir = machine.dir.path().to_owned();
    match yes {
        true => approve(&ApproveArgs { run: Some(run.to_owned()), dir, json: false }, &mut Vec::new()).unwrap(),
        false => decline(&DeclineArgs { run: run.to_owned(), dir, json: false }, &mut Vec::new()).unwrap(),
    }
}

/// Invites a daemon that runs, and gives its answer.
async fn answer(machine: &Machine, run_file: &str) -> v1::AnswerRequest {
    let before = machine.coordinator.book().answers.len();
    machine.invite("one", run_file);
    machine.coordinator.until("an answer", |book| book.answers.len() > before).await;
    machine.coordinator.book().answers[before].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_a_person_through_a_restart_and_is_asked_for_again_when_it_changes() {
    let mut machine = Machine::new();
    machine.config += "[policy]\napprove = \"ask\"\n";
    let run_file = machine.run_file("fedit", 2);
    machine.start();
    let asked = answer(&machine, &run_file).await;
    assert!(asked.undecided && !asked.accept && asked.reason == "waiting for approval at the site", "{asked:?}");
    assert_eq!(waiting(&machine), ["one"]);
    machine.kill().await;
    machine.start();
    assert!(answer(&machine, &run_file).await.undecided);

    say(&machine, "on", true);
    assert!(waiting(&machine).is_empty());
    // A yes is about the terms as they were.
    let changed = run_file.replace("lr = 1e-3", "lr = 2e-3");
    assert!(answer(&machine, &changed).await.undecided);
    assert_eq!(waiting(&machine), ["one"]);
    let taken = answer(&machine, &run_file).await;
    assert!(taken.accept && !taken.undecided, "{taken:?}");
    machine.train("one", 1, &run_file);
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;

    // A no after a yes ends this client's part.
    say(&machine, "one", false);
    machine.train("one", 2, &run_file);
    machine.coordinator.until("it leaves", |book| book.answers.last().is_some_and(|last| !last.accept)).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    assert_eq!(book.answers.last().unwrap().reason, "declined at the site");
    assert_eq!((book.failures[0].round, book.failures[0].reason.as_str()), (2, "declined at the site"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_is_a_no_and_nothing_is_set_aside_for_a_run_that_waits() {
    let mut machine = Machine::new();
    machine.config += "[policy]\napprove = \"ask\"\n";
    let run_file =
        machine.run_file("ffa-lora", 2) + "privacy = { unit = \"example\", epsilon = 8.0, delta = 1e-5, clip = 1.0 }\n";
    machine.start();
    assert!(answer(&machine, &run_file).await.undecided);
    let ledger = std::fs::read_to_string(machine.dir.path().join("ledger.jsonl")).unwrap_or_default();
    assert!(!ledger.contains("\"one\""), "{ledger}");
    say(&machine, "one", false);
    let declined = answer(&machine, &run_file).await;
    assert!(!declined.undecided && !declined.accept && declined.reason == "declined at the site", "{declined:?}");
    say(&machine, "one", true);
    assert!(answer(&machine, &run_file).await.accept);
    machine.stop().await;
}
