//! What goes wrong and is survived: crashes, breaks, lost answers, full disks, panics.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rondo_client::disk::{Disk, LocalDisk, WriteTensors};
use rondo_methods::{FileError, MethodError};
use rondo_proto::Digest;
use rondo_proto::v1::{self, poll_reply::Next};

use crate::machine::Machine;

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_spool_and_upload_it_uploads_after_the_restart() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.coordinator.book().trouble.upload_hangs = true;
    machine.start();
    machine.coordinator.until("the upload begins", |book| !book.upload_offsets.is_empty()).await;
    machine.kill().await;
    assert_eq!(machine.spooled(), ["one/1.1"]);

    // The next try breaks half way, the one after goes on there.
    machine.coordinator.book().trouble.upload_breaks_at = Some(777);
    machine.start();
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
    machine.coordinator.until("the spool is empty", |_| machine.spooled().is_empty()).await;
    machine.stop().await;
    assert_eq!(machine.trained(), 1, "what was trained is not trained again");
    let book = machine.coordinator.book();
    assert_eq!(book.upload_offsets, [0, 0, 777]);
    assert!(book.failures.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_counts_once() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("ffa-lora", 2);
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.train("one", 2, &run_file);
    machine.coordinator.book().trouble.upload_reply_lost = true;
    machine.start();
    machine.coordinator.until("both updates", |book| book.accepted.len() == 2).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    assert!(book.counted.values().all(|count| *count == 1), "{:?}", book.counted);
    assert_eq!(book.upload_offsets, [0, 0], "what is held is not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_the_coordinator_lost_after_accepting_it_is_still_here() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("flora", 2);
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.coordinator.book().trouble.forgets = true;
    machine.start();
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
    machine.coordinator.until("the spool is empty", |_| machine.spooled().is_empty()).await;
    machine.stop().await;
    assert_eq!(machine.trained(), 1);
    assert_eq!(machine.coordinator.book().upload_offsets, [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_it_broke_and_a_wrong_one_is_fetched_again() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    let job = machine.job(&run_file);
    let path = machine.dir.path().join("published");
    job.write_update(
        rondo_methods::Kind::Train,
        rondo_methods::Instance::in_round(1).with_rank(2),
        &job.initial(1, "x", 2),
        &path,
    )
    .unwrap();
    let digest = machine.coordinator.offer(std::fs::read(&path).unwrap());
    machine.invite("one", &run_file);
    let mut train = machine.assignment(v1::WorkKind::Train, "one", 2, &run_file);
    let published = vec![v1::Published { round: 1, digest, bytes: 0 }];
    train.state = Some(v1::AdapterState { round: 1, published, ..Default::default() });
    machine.coordinator.give(Next::Assignment(train));
    {
        let trouble = &mut machine.coordinator.book().trouble;
        (trouble.download_breaks_at, trouble.download_lies) = (Some(1500), true);
    }
    machine.start();
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
    machine.stop().await;
    // The first 1500 bytes were lies: the whole turned out wrong, and all was fetched anew.
    assert_eq!(machine.coordinator.book().download_offsets, [0, 1500, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_failed_to_arrive_is_sent_when_it_is_asked_for_again() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    {
        let trouble = &mut machine.coordinator.book().trouble;
        (trouble.uploads_fail, trouble.reports_fail) = (4, 1);
    }
    machine.start();
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
    machine.stop().await;
    assert_eq!(machine.trained(), 1);
    let book = machine.coordinator.book();
    assert_eq!((book.trouble.uploads_fail, book.trouble.reports_fail), (0, 0));
    assert!(book.failures.is_empty(), "{:?}", book.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_the_coordinator_does_not_give_is_a_failure() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.invite("one", &run_file);
    let mut train = machine.assignment(v1::WorkKind::Train, "one", 2, &run_file);
    let published = vec![v1::Published { round: 1, digest: Digest::of(b"gone").to_string(), bytes: 0 }];
    train.state = Some(v1::AdapterState { round: 1, published, ..Default::default() });
    machine.coordinator.give(Next::Assignment(train));
    machine.start();
    machine.coordinator.until("the failure", |book| !book.failures.is_empty()).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    assert_eq!(book.failures[0].round, 2);
    assert!(book.failures[0].reason.contains("no such blob"), "{:?}", book.failures);
}

/// A disk that is full for as long as the test says.
struct Full(Arc<AtomicBool>);

impl Disk for Full {
    fn tensors(&self, path: &Path, write: &WriteTensors<'_>) -> Result<u64, MethodError> {
        if self.0.load(Ordering::SeqCst) {
            std::fs::write(path, b"half of").unwrap();
            let source = std::io::Error::from_raw_os_error(28);
            return Err(FileError::Io { path: path.to_owned(), source }.into());
        }
        write(path)
    }

    fn write(&self, path: &Path, content: &[u8]) -> std::io::Result<()> {
        LocalDisk.write(path, content)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_keeps_the_spool_and_the_daemon_goes_on() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.coordinator.book().trouble.upload_hangs = true;
    machine.start();
    machine.coordinator.until("the upload begins", |book| !book.upload_offsets.is_empty()).await;
    machine.kill().await;

    let full = Arc::new(AtomicBool::new(true));
    machine.coordinator.book().work.clear();
    machine.train("one", 2, &run_file);
    machine.train("one", 3, &run_file);
    machine.start_on(Box::new(Full(Arc::clone(&full))));
    machine.coordinator.until("the failure", |book| !book.failures.is_empty()).await;
    full.store(false, Ordering::SeqCst);
    machine
        .coordinator
        .until("the old update and the next", |book| {
            [1, 3].iter().all(|round| book.accepted.contains(&("one".to_owned(), *round, 1)))
        })
        .await;
    machine.stop().await;
    let book = machine.coordinator.book();
    assert_eq!(book.failures.len(), 1, "{:?}", book.failures);
    assert_eq!(book.failures[0].round, 2);
    assert!(book.failures[0].reason.starts_with("no space left on the client's disk"), "{:?}", book.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_interrupts_training_and_is_no_failure() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.pretender.steps.store(100_000, Ordering::SeqCst);
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.coordinator.book().trouble.stop = Some("the round went on without this client");
    machine.start();
    machine.coordinator.until("the stop", |book| book.work.is_empty() && !book.heartbeats.is_empty()).await;
    machine.pretender.steps.store(3, Ordering::SeqCst);
    machine.coordinator.book().trouble.stop = None;
    machine.train("one", 2, &run_file);
    machine.coordinator.until("the next round", |book| book.accepted.len() == 1).await;
    machine.stop().await;
    assert_eq!(machine.trained(), 1);
    assert!(machine.coordinator.book().failures.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_in_training_is_prompt_and_the_work_is_taken_up_again() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.pretender.steps.store(100_000, Ordering::SeqCst);
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.start();
    machine.coordinator.until("training", |book| book.heartbeats.iter().any(|heartbeat| heartbeat.step > 0)).await;
    tokio::time::timeout(Duration::from_secs(10), machine.stop()).await.unwrap();
    assert!(machine.coordinator.book().failures.is_empty());
    machine.pretender.steps.store(3, Ordering::SeqCst);
    machine.start();
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
    machine.stop().await;
    assert_eq!(machine.coordinator.book().answers.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_away_is_waited_for() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.coordinator.book().trouble.polls_fail = 4;
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.start();
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_trainer_is_a_failure_and_the_next_work_is_done() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.pretender.panics.store(true, Ordering::SeqCst);
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.train("one", 2, &run_file);
    machine.start();
    machine.coordinator.until("the second update", |book| book.accepted.len() == 1).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    assert_eq!(book.failures.len(), 1);
    assert!(book.failures[0].reason.contains("training engine failed"), "{:?}", book.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_door_refuses_is_dropped() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.coordinator.book().trouble.door_refuses = Some("the update's norm is 12, at most 10 is let in");
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.train("one", 2, &run_file);
    machine.start();
    machine.coordinator.until("the second update", |book| book.accepted.len() == 1).await;
    machine.coordinator.until("the spool is empty", |_| machine.spooled().is_empty()).await;
    machine.stop().await;
    assert_eq!(machine.trained(), 2);
}
