//! Which invitations and assignments the client refuses, and with which words.

use rondo_proto::v1::{self, poll_reply::Next};

use crate::machine::Machine;

/// Invites with a run file and gives the answer.
async fn ask(machine: &mut Machine, run_file: &str) -> v1::AnswerRequest {
    machine.invite("one", run_file);
    machine.start();
    machine.coordinator.until("an answer", |book| !book.answers.is_empty()).await;
    machine.stop().await;
    machine.coordinator.book().answers.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn invitations_are_declined_with_the_reason() {
    let machine = Machine::new();
    let good = machine.run_file("fedit", 2);
    let cases = [
        (String::new(), machine.run_file("fedti", 2), "did you mean `fedit`"),
        (String::new(), machine.run_file("fedit", 4000), "rank 4000 is outside"),
        (String::new(), good.replace("\"query\"", "\"quarry\""), "quarry"),
        (String::new(), good.replace("\"reviews\"", "\"notes\""), "data set \"notes\" is not here"),
        (
            String::new(),
            good.replace("[\"bad\", \"good\"]", "[\"bad\", \"fine\"]"),
            "a label that the run does not know",
        ),
        (String::new(), good.replace("local_steps", "local_step"), "did you mean `train.local_steps`"),
        ("[policy]\nmethods = [\"fed-sb\"]".to_owned(), good.clone(), "allows methods \"fed-sb\", not \"fedit\""),
        ("[policy]\nrequire_privacy = true".to_owned(), good.clone(), "asks for privacy"),
        ("[policy]\nmax_rounds = 1".to_owned(), good.clone(), "rounds.count up to 1"),
        ("[limits]\nmax_rank = 1".to_owned(), good.clone(), "ranks up to 1"),
        (
            "[limits]\nmemory_mb = 20".to_owned(),
            good.clone(),
            "`limits.memory_mb` has 20 MB; a lower `task.max_tokens`",
        ),
    ];
    for (config, run_file, says) in cases {
        let mut machine = Machine::new();
        machine.config += &config;
        let answer = ask(&mut machine, &run_file).await;
        assert!(!answer.accept && answer.reason.contains(says), "{:?} should contain {says:?}", answer.reason);
        let home = machine.dir.path().to_string_lossy().into_owned();
        assert!(!answer.reason.contains(&home), "no path leaves the machine: {}", answer.reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_base_is_declined_with_both_digests() {
    let mut machine = Machine::new();
    let held = machine.base.digest.clone();
    machine.base.digest = format!("blake3:{}", "ab".repeat(32));
    let run_file = machine.run_file("fedit", 2);
    let answer = ask(&mut machine, &run_file).await;
    assert!(!answer.accept);
    assert!(answer.reason.contains(&held) && answer.reason.contains(&machine.base.digest), "{}", answer.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_for_another_run_file_than_agreed_is_refused() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file.replace("lr = 1e-3", "lr = 2e-3"));
    let mut richer = machine.assignment(v1::WorkKind::Train, "one", 2, &run_file);
    richer.rank = 3;
    machine.coordinator.give(Next::Assignment(richer));
    machine.start();
    machine.coordinator.until("both failures", |book| book.failures.len() == 2).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    assert!(book.failures[0].reason.contains("is not the one that this client answered to"), "{:?}", book.failures);
    assert!(book.failures[1].reason.contains("has rank 3, this client offered 2"), "{:?}", book.failures);
    assert_eq!(machine.trained(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_from_another_adapter_than_agreed_is_refused() {
    let mut machine = Machine::new();
    let run_file = machine.run_file("fedit", 2);
    machine.invite("one", &run_file);
    let digest = format!("blake3:{}", "ab".repeat(32));
    let mut other = machine.assignment(v1::WorkKind::Train, "one", 1, &run_file);
    other.initial = Some(v1::InitialAdapter { digest: digest.clone(), ..Default::default() });
    other.state = Some(v1::AdapterState { initial_digest: digest.clone(), ..Default::default() });
    machine.coordinator.give(Next::Assignment(other.clone()));
    let mut torn = v1::Assignment { round: 2, initial: None, ..other };
    torn.state = Some(v1::AdapterState { initial_digest: digest, ..Default::default() });
    machine.coordinator.give(Next::Assignment(torn));
    machine.start();
    machine.coordinator.until("both failures", |book| book.failures.len() == 2).await;
    machine.stop().await;
    let book = machine.coordinator.book();
    assert!(book.failures[0].reason.contains("now starts from adapter \"blake3:abab"), "{:?}", book.failures);
    assert!(book.failures[1].reason.contains("the run starts from \"\""), "{:?}", book.failures);
    assert_eq!(machine.trained(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_for_a_declined_run_is_refused_after_a_restart_too() {
    let mut machine = Machine::new();
    machine.config += "[policy]\nmethods = [\"fed-sb\"]\n";
    let run_file = machine.run_file("fedit", 2);
    assert!(!ask(&mut machine, &run_file).await.accept);
    machine.train("one", 1, &run_file);
    machine.start();
    machine.coordinator.until("the failure", |book| !book.failures.is_empty()).await;
    machine.stop().await;
    assert!(machine.coordinator.book().failures[0].reason.contains("declined run one"));
}
