use super::*;

fn message(round: u32) -> Message {
    Message {
        run: "a-1".to_owned(),
        round,
        attempt: 1,
        what: What::Update,
        bytes: 100,
        digest: format!("blake3:{round}"),
    }
}

#[test]
fn what_was_sent_is_read_back_after_a_restart_and_listed_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    assert_eq!(History::read(&path).unwrap(), Contents::default());
    let history = History::open(&path).unwrap();
    history.sending(&message(1)).unwrap();
    history.sending(&message(1)).unwrap();
    history.taken(&message(1)).unwrap();
    history.sending(&message(2)).unwrap();
    drop(history);
    let history = History::open(&path).unwrap();
    history.sending(&message(2)).unwrap();
    history.taken(&message(1)).unwrap();
    let contents = History::read(&path).unwrap();
    assert!(contents.since_ms.is_some());
    let rounds: Vec<_> = contents.sent.iter().map(|sent| (sent.message.round, sent.taken_ms.is_some())).collect();
    assert_eq!(rounds, [(1, true), (2, false)]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4);
}

#[test]
fn a_line_that_a_crash_cut_short_is_taken_out_and_other_damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    History::open(&path).unwrap().sending(&message(1)).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    for cut in 1..40 {
        fs::write(&path, format!("{whole}{}", &whole[whole.find('\n').unwrap() + 1..][..cut])).unwrap();
        assert_eq!(History::read(&path).unwrap().sent.len(), 1);
        History::open(&path).unwrap().sending(&message(2)).unwrap();
        assert_eq!(History::read(&path).unwrap().sent.len(), 2);
    }
    fs::write(&path, format!("{whole}so it is\n{whole}")).unwrap();
    let problem = History::open(&path).unwrap_err().to_string();
    assert!(problem.contains("line 3") && problem.contains("move it aside"), "{problem}");
}

#[test]
fn a_long_history_is_shortened_and_loses_no_bytes() {
    let sent = (0..30).map(|n| Sent { message: message(n), sent_ms: i64::from(n), taken_ms: Some(99) }).collect();
    let contents = Contents { since_ms: Some(7), summaries: Vec::new(), sent };
    let short = shortened(shortened(contents, 20), 10);
    assert_eq!((short.since_ms, short.sent.len(), short.sent[0].message.round), (Some(7), 10, 20));
    let expected =
        Summary { run: "a-1".to_owned(), what: What::Update, count: 20, bytes: 2000, first_ms: 0, last_ms: 19 };
    assert_eq!(short.summaries, [expected]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    fs::write(&path, lines_of(&short).unwrap()).unwrap();
    assert_eq!(History::read(&path).unwrap(), short);
}
