//! What goes right: whole runs, several runs, states by digest.

use rondo_methods::{Instance, Kind};
use rondo_proto::v1::{self, poll_reply::Next};

use crate::machine::Machine;

fn published(machine: &Machine, run_file: &str, add: f32) -> (Vec<u8>, f32) {
    let job = machine.job(run_file);
    let mut tensors = job.initial(1, "movies", 2);
    tensors.values_mut().for_each(|tensor| tensor.data.iter_mut().for_each(|number| *number += add));
    let path = machine.dir.path().join("published.safetensors");
    job.write_update(Kind::Train, Instance::in_round(1).with_rank(2), &tensors, &path).unwrap();
    let sum = tensors.values().flat_map(|tensor| &tensor.data).sum();
    (std::fs::read(path).unwrap(), sum)
}

fn state(round: u32, digests: &[&String]) -> Option<v1::AdapterState> {
    let published = digests.iter().map(|digest| v1::Published { round, digest: (*digest).clone(), bytes: 0 }).collect();
    Some(v1::AdapterState { round, published, ..Default::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_from_invitation_to_evaluation() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.invite("sentiment-1", &run_file);
    let mut first = machine.assignment(v1::WorkKind::Train, "sentiment-1", 1, &run_file);
    first.evaluate_before = true;
    machine.coordinator.give(Next::Assignment(first));
    let (blob, sum) = published(&machine, &run_file, 0.5);
    let digest = machine.coordinator.offer(blob);
    let mut evaluate = machine.assignment(v1::WorkKind::Evaluate, "sentiment-1", 1, &run_file);
    evaluate.state = state(1, &[&digest]);
    machine.coordinator.give(Next::Assignment(evaluate));
    let mut second = machine.assignment(v1::WorkKind::Train, "sentiment-1", 2, &run_file);
    second.state = state(1, &[&digest]);
    machine.coordinator.give(Next::Assignment(second));
    machine.start();
    machine.coordinator.until("both rounds", |book| book.accepted.len() == 2 && book.work.is_empty()).await;
    machine.coordinator.until("the spool is empty", |_| machine.spooled().is_empty()).await;
    machine.stop().await;

    let book = machine.coordinator.book();
    let introduction = book.introduction.clone().unwrap();
    assert_eq!(
        (introduction.datasets, introduction.bases),
        (vec!["reviews".to_owned()], vec![machine.base.digest.clone()])
    );
    assert_eq!(
        book.answers,
        [v1::AnswerRequest { run: "sentiment-1".to_owned(), accept: true, rank: 2, ..Default::default() }]
    );
    assert!(book.failures.is_empty(), "{:?}", book.failures);
    let evaluation = book.evaluations[0].evaluation.clone().unwrap();
    assert!((evaluation.loss - f64::from(sum)).abs() < 1e-3, "the published state was evaluated");
    let (bytes, header) = &book.uploads[&("sentiment-1".to_owned(), 1, 1)];
    assert_eq!((header.rank, header.base_version, header.train_loss), (2, 0, 0.25));
    assert_eq!(header.before.as_ref().map(|before| before.accuracy), Some(0.5));
    assert_eq!(header.examples + evaluation.examples, 60);
    assert_eq!(bytes.len() as u64, header.total_bytes);
    assert_eq!(book.uploads[&("sentiment-1".to_owned(), 2, 1)].1.base_version, 1);
    // One download served the evaluation and the next round.
    assert_eq!(book.download_offsets, [0]);
    let states: std::collections::BTreeSet<&str> =
        book.heartbeats.iter().map(|heartbeat| heartbeat.state.as_str()).collect();
    assert!(states.contains("training") && states.contains("evaluating"), "{states:?}");
    assert!(book.heartbeats.iter().any(|heartbeat| heartbeat.steps == 3 && heartbeat.loss == 0.5));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_runs_one_after_another_and_a_warm_up() {
    let mut machine = Machine::new();
    let first = machine.run_file("fed-sb", 2);
    let second = machine.run_file("flora", 4);
    machine.config += "[limits]\nmax_rank = 3\n";
    machine.invite("one", &first);
    machine.invite("two", &second);
    let warm_up = machine.assignment(v1::WorkKind::WarmUp, "one", 0, &first);
    machine.coordinator.give(Next::Assignment(warm_up));
    machine.train("two", 1, &second);
    machine.start();
    machine.coordinator.until("both updates", |book| book.accepted.len() == 2).await;
    machine.stop().await;

    let book = machine.coordinator.book();
    let ranks: Vec<(bool, u32)> = book.answers.iter().map(|answer| (answer.accept, answer.rank)).collect();
    assert_eq!(ranks, [(true, 2), (true, 3)], "flora mixes ranks and takes this client's largest");
    assert!(book.heartbeats.iter().any(|heartbeat| heartbeat.state == "warm-up"));
    let (uploaded, header) = &book.uploads[&("two".to_owned(), 1, 1)];
    assert_eq!(header.rank, 3);
    let path = machine.dir.path().join("update");
    std::fs::write(&path, uploaded).unwrap();
    let manifest = rondo_proto::manifest::read(&path).unwrap();
    assert_eq!(
        rondo_proto::manifest::diff(
            &machine.job(&second).upload_manifest(Kind::Train, Instance::in_round(2).with_rank(3)),
            &manifest
        ),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_upload_is_dropped_and_not_done_again() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.invite("one", &run_file);
    machine.coordinator.book().trouble.upload_hangs = true;
    machine.train("one", 1, &run_file);
    machine.start();
    machine.coordinator.until("the upload begins", |book| !book.upload_offsets.is_empty()).await;
    machine.kill().await;
    assert_eq!(machine.spooled(), ["one/1.1"]);
    // The round has been aggregated since; the client is to measure what came of it.
    machine.coordinator.book().work.clear();
    let mut evaluate = machine.assignment(v1::WorkKind::Evaluate, "one", 1, &run_file);
    evaluate.upload_settled = true;
    machine.coordinator.give(Next::Assignment(evaluate));
    machine.start();
    machine.coordinator.until("the evaluation", |book| !book.evaluations.is_empty()).await;
    machine.stop().await;
    assert!(machine.spooled().is_empty());
    assert_eq!(machine.trained(), 1);
    assert_eq!(machine.coordinator.book().upload_offsets.len(), 1);
}
