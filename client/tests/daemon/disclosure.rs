//! What leaves by the keys of `[policy]`: results by group, metrics; and what is on record of it.

use std::fmt::Write;
use std::fs;

use rondo_client::history::{History, What};
use rondo_proto::v1::{self, poll_reply::Next};

use crate::coordinator::Book;
use crate::machine::Machine;

/// A machine whose rows have groups: two large ones and one of a single person.
fn machine(policy: &str) -> Machine {
    let mut machine = Machine::new();
    let mut rows = "text\tlabel\tward\n".to_owned();
    for n in 0..400 {
        let ward = ["cardiology", "oncology"][n / 2 % 2];
        writeln!(rows, "text number {n}\t{}\t{ward}", ["bad", "good"][n % 2]).unwrap();
    }
    // Some of them are held out, whatever the split.
    for n in 0..6 {
        writeln!(rows, "a rare case {n}\tbad\tporphyria").unwrap();
    }
    fs::write(machine.dir.path().join("reviews.tsv"), rows).unwrap();
    machine.config = machine.config.replace("eval_fraction = 0.3", "eval_fraction = 0.5\ngroup = \"ward\"");
    machine.config += policy;
    machine
}

/// One round: trained from a measured state, and measured.
async fn round(machine: &mut Machine) {
    let run_file = machine.run_file("fedit", 2);
    machine.invite("one", &run_file);
    let mut train = machine.assignment(v1::WorkKind::Train, "one", 1, &run_file);
    train.evaluate_before = true;
    machine.coordinator.give(Next::Assignment(train));
    machine.coordinator.give(Next::Assignment(machine.assignment(v1::WorkKind::Evaluate, "one", 1, &run_file)));
    machine.start();
    machine.coordinator.until("the round", |book| book.accepted.len() == 1 && book.work.is_empty()).await;
    machine.stop().await;
}

/// Everything that the coordinator holds, as text.
fn all_text(book: &Book) -> String {
    let headers: Vec<_> = book.uploads.values().map(|upload| &upload.1).collect();
    format!("{headers:?} {:?} {:?} {:?} {:?}", book.evaluations, book.failures, book.answers, book.heartbeats)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_group_leaves_unless_client_toml_says_so() {
    let mut machine = machine("");
    round(&mut machine).await;
    let book = machine.coordinator.book();
    let text = all_text(&book);
    assert!(!text.contains("cardiology") && !text.contains("porphyria"), "{text}");
    assert!(book.evaluations[0].evaluation.as_ref().unwrap().examples > 100, "the whole is reported");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_group_leaves_neither_by_name_nor_by_difference() {
    let mut machine = machine("[policy]\nreport_groups = true\n");
    round(&mut machine).await;
    let book = machine.coordinator.book();
    assert!(!all_text(&book).contains("porphyria"));
    let (_, header) = &book.uploads[&("one".to_owned(), 1, 1)];
    for evaluation in [header.before.as_ref().unwrap(), book.evaluations[0].evaluation.as_ref().unwrap()] {
        let named: Vec<&str> = evaluation.groups.iter().map(|group| group.group.as_str()).collect();
        assert!(named.len() == 2 && named.contains(&"other"), "{named:?}");
        assert!(evaluation.groups.iter().all(|group| group.examples >= 10));
        assert_eq!(evaluation.groups.iter().map(|group| group.examples).sum::<u64>(), evaluation.examples);
    }
    assert_eq!((header.min_group, book.evaluations[0].min_group), (10, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_withholds_its_metrics_measures_nothing_and_says_so() {
    let mut machine = machine("[policy]\nreport_metrics = false\nreport_groups = true\n");
    round(&mut machine).await;
    let book = machine.coordinator.book();
    let (_, header) = &book.uploads[&("one".to_owned(), 1, 1)];
    assert!(header.metrics_withheld && header.before.is_none() && header.train_loss == 0.0 && header.examples > 0);
    assert!(book.evaluations.is_empty());
    let report = &book.failures[0];
    assert!(report.metrics_withheld && report.reason.contains("withholds its measurements"), "{report:?}");
    assert!(book.heartbeats.iter().all(|heartbeat| heartbeat.loss.is_nan()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_on_record_with_the_digests_that_the_coordinator_has() {
    let mut machine = machine("");
    round(&mut machine).await;
    let contents = History::read(&machine.dir.path().join("history.jsonl")).unwrap();
    let kinds: Vec<What> = contents.sent.iter().map(|sent| sent.message.what).collect();
    assert_eq!(kinds, [What::Answer, What::Update, What::Evaluation]);
    assert!(contents.sent.iter().all(|sent| sent.taken_ms.is_some_and(|taken| taken >= sent.sent_ms)));
    let book = machine.coordinator.book();
    let (bytes, header) = &book.uploads[&("one".to_owned(), 1, 1)];
    let update = &contents.sent[1].message;
    assert_eq!((update.bytes, &update.digest), (bytes.len() as u64, &header.key.as_ref().unwrap().digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_on_record_before_its_first_byte_leaves() {
    let mut machine = machine("");
    let run_file = machine.run_file("fedit", 2);
    machine.coordinator.book().trouble.upload_hangs = true;
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.start();
    machine.coordinator.until("an upload", |book| !book.upload_offsets.is_empty()).await;
    machine.kill().await;
    let sent = History::read(&machine.dir.path().join("history.jsonl")).unwrap().sent;
    let update = sent.iter().find(|sent| sent.message.what == What::Update).unwrap();
    assert_eq!(update.taken_ms, None, "some of it may have left, and nobody has confirmed it");
    // Sent again after the restart, it is still one update.
    machine.start();
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
    machine.stop().await;
    let sent = History::read(&machine.dir.path().join("history.jsonl")).unwrap().sent;
    let updates: Vec<_> = sent.iter().filter(|sent| sent.message.what == What::Update).collect();
    assert!(updates.len() == 1 && updates[0].taken_ms.is_some());
}
