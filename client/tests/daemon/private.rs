//! What a run with privacy may ask of a client, and what the client reports.

use std::fs;
use std::sync::atomic::Ordering;

use rondo_dp::{Ledger, LedgerState};
use rondo_proto::v1::{WorkKind, poll_reply::Next};

use crate::machine::Machine;

const UNSERVED: &str = "this client's data do not serve this run";
const BUDGET: &str = "[[privacy]]\ndomain = \"reviews\"\nepsilon = 8.0\ndelta = 1e-3\n";

fn private(machine: &Machine, method: &str, unit: &str) -> String {
    let privacy = format!("privacy = {{ unit = \"{unit}\", epsilon = 4.0, delta = 1e-3, clip = 1.0 }}\n");
    machine.run_file(method, 2) + &privacy
}

fn ledger(machine: &Machine) -> LedgerState {
    Ledger::read(&machine.dir.path().join("ledger.jsonl")).unwrap().state
}

/// Starts, waits for so many answers and failures, and
/// gives the reasons: first those of the answers.
async fn reasons(machine: &mut Machine, answers: usize, failures: usize) -> Vec<String> {
    machine.start();
    let all = |book: &crate::coordinator::Book| book.answers.len() >= answers && book.failures.len() >= failures;
    machine.coordinator.until("all answers and failures", all).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    let answers = book.answers.iter().map(|answer| answer.reason.clone());
    answers.chain(book.failures.iter().map(|failure| failure.reason.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_up_that_reads_gradients_is_refused_and_another_tells_no_number() {
    let mut machine = Machine::new();
    let sketch = private(&machine, "fed-sb", "example");
    machine.invite("one", &sketch);
    for run in ["one", "not-invited"] {
        machine.coordinator.give(Next::Assignment(machine.assignment(WorkKind::WarmUp, run, 0, &sketch)));
    }
    for reason in reasons(&mut machine, 1, 2).await {
        assert!(reason.contains("would reveal gradients of this client's data"), "{reason}");
        assert!(reason.contains("init = \"base-svd\""), "{reason}");
    }
    assert_eq!(machine.trained(), 0);

    let mut machine = Machine::new();
    let factors = private(&machine, "fed-sb", "example").replace("rank = 2,", "rank = 2, init = \"base-svd\",");
    machine.invite("one", &factors);
    machine.coordinator.give(Next::Assignment(machine.assignment(WorkKind::WarmUp, "one", 0, &factors)));
    machine.start();
    machine.coordinator.until("the factors", |book| book.accepted.len() == 1).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    let header = &book.uploads[&("one".to_owned(), 0, 1)].1;
    assert_eq!((header.examples, header.train_loss, header.train_seconds), (0, 0.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn training_does_not_pass_for_a_warm_up_nor_a_warm_up_for_training() {
    let mut machine = Machine::new();
    let sketch = private(&machine, "fed-sb", "example").replace("clip = 1.0", "clip = 1.0, warm_up_clip = 0.5");
    machine.invite("one", &sketch);
    for (kind, round) in [(WorkKind::Train, 0), (WorkKind::WarmUp, 1)] {
        machine.coordinator.give(Next::Assignment(machine.assignment(kind, "one", round, &sketch)));
    }
    let reasons = reasons(&mut machine, 1, 2).await;
    let refusals = reasons.iter().filter(|reason| reason.contains("a warm-up is round 0")).count();
    assert_eq!(refusals, 2, "{reasons:?}");
    assert_eq!(machine.trained(), 0);
    assert!(ledger(&machine).runs["one"].updates.is_empty(), "nothing was charged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_up_that_pays_is_entered_once_and_sent_again_as_it_was() {
    let mut machine = Machine::new();
    let sketch = private(&machine, "fed-sb", "example").replace("clip = 1.0", "clip = 1.0, warm_up_clip = 0.5");
    machine.invite("one", &sketch);
    machine.coordinator.give(Next::Assignment(machine.assignment(WorkKind::WarmUp, "one", 0, &sketch)));
    machine.start();
    machine.coordinator.until("the statistic", |book| book.accepted.len() == 1).await;
    let mut again = machine.assignment(WorkKind::WarmUp, "one", 0, &sketch);
    again.attempt = 2;
    machine.coordinator.give(Next::Assignment(again));
    machine.coordinator.until("the same again", |book| book.accepted.len() == 2).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    let header = |attempt: u32| &book.uploads[&("one".to_owned(), 0, attempt)].1;
    let report = header(1).privacy.as_ref().unwrap();
    assert_eq!((report.steps, report.total_steps, report.clip), (1, 1, 0.5));
    assert_eq!((header(1).examples, header(1).train_loss, header(1).train_seconds), (0, 0.0, 0.0));
    let digest = |attempt: u32| header(attempt).key.as_ref().unwrap().digest.clone();
    assert_eq!(digest(1), digest(2), "one charge is one draw");
    assert_eq!((machine.trained(), header(2).privacy.as_ref().unwrap().total_steps), (1, 1));
    let account = &ledger(&machine).runs["one"];
    assert_eq!(account.updates.values().copied().collect::<Vec<_>>(), [0]);
    assert_eq!(account.plan.whole().unwrap().steps(), 2 * 3 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_measured_and_nothing_told_beside_the_tensors() {
    let mut machine = Machine::new();
    let run_file = private(&machine, "ffa-lora", "example");
    machine.invite("one", &run_file);
    let mut before = machine.assignment(WorkKind::Train, "one", 1, &run_file);
    before.evaluate_before = true;
    machine.coordinator.give(Next::Assignment(before));
    machine.coordinator.give(Next::Assignment(machine.assignment(WorkKind::Evaluate, "one", 2, &run_file)));
    for reason in &reasons(&mut machine, 1, 2).await[1..] {
        assert!(reason.contains("a measurement on this client's data would leak"), "{reason}");
    }
    assert_eq!(machine.trained(), 0);
    assert!(machine.coordinator.book().evaluations.is_empty());

    machine.train("one", 3, &run_file);
    machine.pretender.steps.store(20, Ordering::SeqCst);
    machine.start();
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    let header = &book.uploads[&("one".to_owned(), 3, 1)].1;
    assert_eq!((header.examples, header.train_loss, header.train_seconds), (0, 0.0, 0.0));
    assert!(header.privacy.is_some() && header.before.is_none());
    assert!(book.heartbeats.iter().any(|heartbeat| heartbeat.step > 0));
    assert!(book.heartbeats.iter().all(|heartbeat| heartbeat.loss == 0.0), "the trainer says 0.5");
}

#[tokio::test(flavor = "multi_thread")]
async fn public_is_the_data_owners_word() {
    for (table, unit, says) in [
        ("", Some("example"), Some("does not call data set \"benchmark\" public")),
        ("public = true\n", Some("example"), None),
        ("public = true\n", Some("client"), None),
        ("", None, None),
        ("[[privacy]]\ndomain = \"benchmark\"\nepsilon = 8.0\ndelta = 1e-3\n", None, Some("has a privacy budget here")),
    ] {
        let mut machine = Machine::new();
        fs::copy(machine.dir.path().join("reviews.tsv"), machine.dir.path().join("benchmark.tsv")).unwrap();
        machine.config += &format!("[[dataset]]\nname = \"benchmark\"\npath = \"benchmark.tsv\"\n{table}");
        let evaluation = "evaluation = { client = \"movies\", dataset = \"benchmark\", public = true }\n";
        let run_file = match unit {
            Some(unit) => private(&machine, "ffa-lora", unit).replace("cohort = 1", "cohort = 2"),
            None => machine.run_file("ffa-lora", 2),
        } + evaluation;
        machine.invite("one", &run_file);
        let mut evaluate = machine.assignment(WorkKind::Evaluate, "one", 1, &run_file);
        evaluate.dataset = "benchmark".to_owned();
        machine.coordinator.give(Next::Assignment(evaluate));
        machine.start();
        machine.coordinator.until("it is settled", |book| book.evaluations.len() + book.failures.len() == 1).await;
        machine.stop().await;
        let book = machine.coordinator.book();
        match says {
            Some(says) => assert!(book.failures[0].reason.contains(says), "{:?}", book.failures),
            None => assert_eq!(book.evaluations[0].evaluation.as_ref().unwrap().examples, 60, "{:?}", book.failures),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_with_a_budget_are_for_runs_that_it_can_be_held_against() {
    let mut machine = Machine::new();
    machine.config += BUDGET;
    machine.invite("plain", &machine.run_file("ffa-lora", 2));
    machine.invite("client", &private(&machine, "ffa-lora", "client").replace("cohort = 1", "cohort = 2"));
    machine.invite("example", &private(&machine, "ffa-lora", "example"));
    let reasons = reasons(&mut machine, 3, 0).await;
    assert!(
        reasons[..2].iter().all(|reason| reason.contains("data set \"reviews\" has a privacy budget here")),
        "{reasons:?}"
    );
    assert!(reasons[..2].iter().all(|reason| reason.contains("privacy.unit = \"example\"")), "{reasons:?}");
    assert_eq!(reasons[2], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_declared_while_a_run_is_open_ends_it_here() {
    let mut machine = Machine::new();
    let run_file = private(&machine, "ffa-lora", "example");
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.start();
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
    machine.stop().await;
    machine.config += &BUDGET.replace("8.0", "0.1");
    machine.train("one", 2, &run_file);
    let reasons = reasons(&mut machine, 1, 1).await;
    assert!(reasons[1].contains("privacy budget has no room"), "{reasons:?}");
    assert_eq!((machine.trained(), ledger(&machine).runs["one"].updates.len()), (1, 1));
}

/// Neither a refusal nor the sampling rate depends on the labels that a run asks about.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_not_asked_about_one_by_one() {
    let mut machine = Machine::new();
    let file = machine.dir.path().join("reviews.tsv");
    fs::write(&file, fs::read_to_string(&file).unwrap() + "the only one of its kind\tinfluenza\n").unwrap();
    let run_file = private(&machine, "ffa-lora", "example");
    let runs = [("one", "[\"bad\", \"good\"]"), ("two", "[\"bad\", \"influenza\"]"), ("three", "[\"no\", \"such\"]")];
    for (run, labels) in runs {
        let asked = run_file.replace("[\"bad\", \"good\"]", labels);
        machine.invite(run, &asked);
        machine.train(run, 1, &asked);
    }
    machine.start();
    machine.coordinator.until("all updates", |book| book.accepted.len() == 3).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    assert!(book.answers.iter().all(|answer| answer.accept) && book.failures.is_empty(), "{:?}", book.answers);
    let rate = |run: &str| book.uploads[&(run.to_owned(), 1, 1)].1.privacy.as_ref().unwrap().sampling_rate;
    assert!(rate("one") > 0.0 && rate("one") == rate("two") && rate("one") == rate("three"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_the_data_is_told_in_one_sentence() {
    let mut machine = Machine::new();
    let run_file = private(&machine, "ffa-lora", "example");
    machine.invite("one", &run_file);
    machine.pretender.diverges.store(true, Ordering::SeqCst);
    machine.train("one", 1, &run_file);
    assert_eq!(reasons(&mut machine, 1, 1).await, ["", UNSERVED]);
    machine.pretender.panics.store(true, Ordering::SeqCst);
    machine.train("one", 2, &run_file);
    assert_eq!(reasons(&mut machine, 1, 2).await, ["", UNSERVED, UNSERVED]);
    assert!(ledger(&machine).runs["one"].updates.is_empty());

    let mut machine = Machine::new();
    fs::write(machine.dir.path().join("reviews.tsv"), "text\tlabel\n").unwrap();
    machine.invite("one", &private(&machine, "ffa-lora", "example"));
    machine.invite("two", &private(&machine, "ffa-lora", "client").replace("cohort = 1", "cohort = 2"));
    machine.invite("three", &machine.run_file("ffa-lora", 2));
    let reasons = reasons(&mut machine, 3, 0).await;
    assert_eq!(reasons[..2], [UNSERVED, UNSERVED]);
    assert!(reasons[2].contains("has no rows"), "{reasons:?}");
}

/// That a training diverged says something of the
/// data: it is an update like any other, and charged.
#[cfg(feature = "torch")]
#[tokio::test(flavor = "multi_thread")]
async fn a_training_that_diverges_is_charged_and_gives_no_reason() {
    use rondo_trainer::LibtorchTrainer;
    use rondo_trainer::device::DeviceChoice;
    use rondo_trainer_api::work::WorkError;

    let mut machine = Machine::new();
    machine.trainer = Some(|| {
        let made = LibtorchTrainer::new(DeviceChoice::Cpu, Some(1));
        made.map(|trainer| Box::new(trainer) as _).map_err(|error| WorkError::Engine(error.to_string()))
    });
    let run_file = private(&machine, "ffa-lora", "example").replace("lr = 1e-3", "lr = 3e38");
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.start();
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    assert!(book.failures.is_empty(), "{:?}", book.failures);
    let (bytes, header) = &book.uploads[&("one".to_owned(), 1, 1)];
    assert!(header.privacy.is_some());
    assert_eq!(ledger(&machine).runs["one"].updates.len(), 1);
    let path = machine.dir.path().join("update");
    fs::write(&path, bytes).unwrap();
    let update = rondo_methods::file::TensorFile::open(&path).unwrap().read_all(|_| true).unwrap();
    let start = machine.job(&run_file).initial(1, "movies", 2);
    assert!(!update.is_empty() && update.iter().all(|(name, tensor)| start[name] == *tensor), "nothing has changed");
}

/// The update of run "one", round 1, made and paid for in attempt 1, which
/// was over when it came; not yet asked for again.
async fn late(machine: &mut Machine) {
    let run_file = private(machine, "ffa-lora", "example");
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.coordinator.book().trouble.stale_attempts = u32::MAX;
    machine.start();
    machine.coordinator.until("some attempts", |book| book.trouble.stale_attempts < u32::MAX - 2).await;
    machine.stop().await;
    machine.coordinator.book().trouble.stale_attempts = 0;
}

/// What a full disk between the ledger and the note in the
/// spool leaves; with `other` the ledger has it not.
fn unpay(machine: &Machine, other: bool) {
    let entries = machine.spooled();
    assert_eq!(entries.len(), 1);
    let path = machine.dir.path().join("spool").join(&entries[0]).join("meta.json");
    let mut meta: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    meta["facts"]["charge"] = "due".into();
    if other {
        meta["digest"] = rondo_proto::Digest::of(b"other bytes").to_string().into();
    }
    fs::write(&path, meta.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_came_too_late_serves_the_next_attempt_and_is_paid_once() {
    for noted in [true, false] {
        let mut machine = Machine::new();
        late(&mut machine).await;
        if !noted {
            unpay(&machine, false);
        }
        machine.start();
        machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
        machine.stop().await;
        let attempt = machine.coordinator.book().accepted.first().unwrap().2;
        assert!(attempt > 2 && machine.trained() == 1, "attempt {attempt}, trained {} times", machine.trained());
        assert_eq!(ledger(&machine).runs["one"].updates.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_nobody_asks_for_is_never_paid_for() {
    let mut machine = Machine::new();
    late(&mut machine).await;
    unpay(&machine, true);
    machine.coordinator.book().work.clear();
    machine.start();
    let polls = machine.coordinator.book().polls;
    machine.coordinator.until("some polls", |book| book.polls > polls + 3).await;
    assert_eq!(machine.spooled().len(), 1, "its round may still ask for it");
    machine.coordinator.book().ended_runs.push("one".to_owned());
    machine.coordinator.until("more polls", |book| book.polls > polls + 8).await;
    machine.stop().await;
    assert!(machine.spooled().is_empty());
    assert_eq!(ledger(&machine).runs["one"].updates.len(), 1);
    assert!(machine.coordinator.book().uploads.is_empty());
}
