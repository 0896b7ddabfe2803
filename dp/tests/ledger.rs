//! The ledger holds what was promised, whatever happens to its file.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use rondo_dp::{Accountant, ExamplePlan, Ledger, LedgerError, Limit, Privacy, Schedule, Terms};

fn plan(rounds: u32, noise_multiplier: Option<f64>) -> ExamplePlan {
    let terms = Terms { noise_multiplier, ..Terms::new(3.0, 1e-5, 1.0) };
    let promise = Privacy::new("example", terms).unwrap();
    ExamplePlan::new(&promise, 2000, Schedule { batch: 64, steps: 10, rounds }).unwrap()
}

fn open(dir: &Path) -> Ledger {
    Ledger::open(&dir.join("ledger.jsonl")).unwrap()
}

fn spent(ledger: &Ledger, run: &str) -> f64 {
    ledger.state().runs[run].released.epsilon_enforced(1e-5).unwrap()
}

#[test]
fn a_run_spends_its_rounds_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    let plan = plan(3, None);
    assert!(matches!(ledger.spend("r", 1, "u1", 0), Err(LedgerError::NotReserved { .. })));
    ledger.reserve("r", "d", &plan, None, 0).unwrap();
    for round in 1..=3 {
        ledger.check("r", 1).unwrap();
        ledger.spend("r", round, &format!("u{round}"), 0).unwrap();
    }
    assert!(spent(&ledger, "r") <= 3.0 && spent(&ledger, "r") > 2.99);
    let reported = ledger.check("r", 1).unwrap_err().to_string();
    assert!(reported.contains("has spent its privacy budget") && reported.contains("of 3"), "{reported}");
    assert!(ledger.spend("r", 4, "u4", 0).is_err());
    // The same bytes again cost nothing, and the same reservation counts once.
    let head = ledger.head();
    ledger.spend("r", 2, "u2", 9).unwrap();
    ledger.reserve("r", "d", &plan, None, 9).unwrap();
    assert_eq!(ledger.head(), head);
    let other = ExamplePlan { sampling_rate: 0.05, ..plan };
    assert!(matches!(ledger.reserve("r", "d", &other, None, 0), Err(LedgerError::OtherPlan { .. })));
}

#[test]
fn a_paid_warm_up_is_one_step_and_leaves_every_round_its_room() {
    let dir = tempfile::tempdir().unwrap();
    let terms = Terms { warm_up_clip: Some(0.5), ..Terms::new(3.0, 1e-5, 1.0) };
    let schedule = Schedule { batch: 64, steps: 10, rounds: 3 };
    let plan = ExamplePlan::new(&Privacy::new("example", terms).unwrap(), 2000, schedule).unwrap();
    let mut ledger = open(dir.path());
    // A budget without a crumb to spare: nothing that was not foreseen is let through.
    let limit = Limit::new(3.3, 1e-5).unwrap();
    ledger.reserve("r", "d", &plan, Some(limit), 0).unwrap();
    let committed = ledger.state().committed("d").unwrap();
    for round in 0..=3 {
        ledger.check("r", round).unwrap();
        ledger.spend("r", round, &format!("u{round}"), 0).unwrap();
        // The warm-up's bytes again cost nothing.
        ledger.spend("r", 0, "u0", 9).unwrap();
    }
    let steps: u64 = ledger.state().runs["r"].released.events().iter().map(|event| event.steps()).sum();
    assert_eq!(steps, 31);
    assert!(spent(&ledger, "r") <= 3.0 && spent(&ledger, "r") > 2.99);
    let after = ledger.state().committed("d").unwrap();
    let cost = |curve: &rondo_dp::Curve| curve.epsilon_enforced(1e-5).unwrap();
    assert!((cost(&after) - cost(&committed)).abs() < 1e-9, "nothing is counted twice, and nothing is left over");
    drop(ledger);
    let mut again = open(dir.path());
    assert!(matches!(again.check("r", 4), Err(LedgerError::RunSpent { .. })));
    let free = ExamplePlan { warm_up_clip: None, ..plan };
    let other = again.reserve("r", "d", &free, Some(limit), 0).unwrap_err().to_string();
    assert!(other.contains("the clip of the warm-up was 0.5 and is none"), "{other}");
}

#[test]
fn a_plan_that_has_changed_is_refused_by_what_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    let plan = plan(3, Some(2.0));
    ledger.reserve("r", "customers", &plan, None, 0).unwrap();
    let mut reported =
        |domain: &str, plan: &ExamplePlan| ledger.reserve("r", domain, plan, None, 0).unwrap_err().to_string();
    let domain = reported("reviews", &plan);
    assert!(domain.contains(r#"another plan: the privacy domain was "customers" and is "reviews"; put"#), "{domain}");
    let larger = reported("customers", &ExamplePlan { sampling_rate: 0.05, ..plan });
    assert!(larger.contains("training examples fixes, was 0.032 and is 0.05; put"), "{larger}");
    let other = reported("customers", &ExamplePlan { rounds: 9, clip: 0.5, ..plan });
    assert!(other.contains("the clip was 1 and is 0.5, the number of rounds was 3 and is 9; put"), "{other}");
}

#[test]
fn runs_over_the_same_data_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    let budget = Some(Limit::new(3.6, 1e-5).unwrap());
    ledger.reserve("a", "patients", &plan(3, None), budget, 0).unwrap();
    // A whole plan more does not fit, in another domain it does.
    let reported = ledger.reserve("b", "patients", &plan(3, None), budget, 0).unwrap_err().to_string();
    assert!(reported.contains("\"patients\" allows epsilon 3.6"), "{reported}");
    ledger.reserve("b", "others", &plan(3, None), budget, 0).unwrap();
    // What was reserved and never released is free again; what was released is not.
    ledger.spend("a", 1, "u", 0).unwrap();
    ledger.close("a", 0).unwrap();
    ledger.close("a", 0).unwrap();
    ledger.reserve("c", "patients", &plan(3, None), budget, 0).unwrap();
    let held = ledger.state().domains["patients"].budget.unwrap();
    let cost = held.cost(&ledger.state().committed("patients").unwrap()).unwrap();
    let alone = held.cost(&rondo_dp::Curve::of(&plan(3, None).whole().unwrap())).unwrap();
    assert!(cost > alone && cost <= 3.6, "{cost} {alone}");
    // A closed run is asked about its domain again.
    for round in 2..=3 {
        ledger.spend("c", round, &format!("c{round}"), 0).unwrap();
    }
    ledger.spend("c", 1, "c1", 0).unwrap();
    ledger.spend("a", 2, "u2", 0).unwrap();
    assert!(matches!(ledger.spend("a", 3, "u3", 0), Err(LedgerError::Budget { .. })));
}

#[test]
fn it_is_the_same_ledger_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    let budget = Some(Limit::new(4.0, 1e-5).unwrap());
    ledger.reserve("r", "d", &plan(4, Some(1.0)), budget, 1).unwrap();
    ledger.spend("r", 1, "u1", 2).unwrap();
    let state = ledger.state().clone();
    let head = ledger.head();
    drop(ledger);
    let again = open(dir.path());
    assert_eq!((again.state(), again.head()), (&state, head));
    let read = Ledger::read(&dir.path().join("ledger.jsonl")).unwrap();
    assert_eq!((&read.state, read.head), (&state, head));
    assert_eq!((read.entries.len(), read.entries[1].1), (2, head));
}

#[test]
fn an_edited_ledger_is_refused_by_line_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.jsonl");
    let mut ledger = open(dir.path());
    ledger.reserve("r", "d", &plan(4, Some(1.0)), None, 1).unwrap();
    ledger.spend("r", 1, "u1", 2).unwrap();
    ledger.spend("r", 2, "u2", 3).unwrap();
    drop(ledger);
    let sound = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = sound.split_inclusive('\n').collect();
    let edits = [
        (sound.replacen("\"round\":1", "\"round\":7", 1), 2),
        (sound.replacen("\"steps\":10", "\"steps\":1", 1), 1),
        ([lines[0], lines[2]].concat(), 2),
        ([lines[0], lines[2], lines[1]].concat(), 2),
        ([lines[0], lines[1], lines[1]].concat(), 3),
        (sound.replacen("\"number\":2", "\"number\":9", 1), 2),
        (format!("{}junk\n", lines[0]), 2),
    ];
    for (edited, line) in edits {
        fs::write(&path, &edited).unwrap();
        let reported = Ledger::open(&path).unwrap_err().to_string();
        assert!(
            reported.contains("was changed") && reported.contains(&format!("line {line}:")),
            "{reported}\n{edited}"
        );
        assert!(reported.contains("newest copy") && reported.contains("rondo privacy ledger RUN"), "{reported}");
        assert_eq!(fs::read_to_string(&path).unwrap(), edited);
    }
    // What no hash of the file itself shows: the last line dropped, or all of them.
    for kept in [lines[..2].concat(), lines[..1].concat(), String::new()] {
        fs::write(&path, &kept).unwrap();
        let error = Ledger::open(&path).unwrap_err();
        let whole = kept.lines().count() as u64;
        assert!(matches!(error, LedgerError::Behind { found, counted: 3, .. } if found == whole), "{error}");
        assert!(error.to_string().contains("newest copy"), "{error}");
        assert!(matches!(Ledger::read(&path), Err(LedgerError::Behind { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), kept);
    }
    fs::write(&path, &sound).unwrap();
    Ledger::open(&path).unwrap();
}

#[test]
fn a_ledger_that_was_deleted_or_has_no_head_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.jsonl");
    let head = dir.path().join("ledger.head");
    let mut ledger = open(dir.path());
    ledger.reserve("r", "d", &plan(4, Some(1.0)), None, 1).unwrap();
    ledger.spend("r", 1, "u1", 2).unwrap();
    let reported = format!("2 {}\n", ledger.head());
    drop(ledger);
    let sound = fs::read(&path).unwrap();
    let pinned = fs::read_to_string(&head).unwrap();
    assert_eq!(pinned, reported);

    fs::remove_file(&path).unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::Missing { counted: 2, .. })));
    assert!(matches!(Ledger::read(&path), Err(LedgerError::Missing { counted: 2, .. })));
    assert!(!path.exists(), "none is made in its place");
    fs::write(&path, &sound).unwrap();

    // A head that is lost or damaged; the error has the line that repairs it.
    for broken in [None, Some("2 blake3:12"), Some("")] {
        match broken {
            Some(broken) => fs::write(&head, broken).unwrap(),
            None => fs::remove_file(&head).unwrap(),
        }
        let error = Ledger::open(&path).unwrap_err();
        assert!(matches!(error, LedgerError::NoHead { entries: 2, .. }), "{error}");
        let line = error.to_string().split_once("write this line into it: ").unwrap().1.to_owned();
        assert!(matches!(Ledger::read(&path), Err(LedgerError::NoHead { .. })));
        fs::write(&head, line).unwrap();
        assert_eq!(open(dir.path()).head().entries, 2);
    }
    // A head of another ledger.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut other = open(elsewhere.path());
    other.reserve("s", "d", &plan(4, Some(1.0)), None, 1).unwrap();
    fs::copy(elsewhere.path().join("ledger.head"), &head).unwrap();
    let reported = Ledger::open(&path).unwrap_err().to_string();
    assert!(
        reported.contains("line 1: it is not the entry that") && reported.contains("ledger.head has"),
        "{reported}"
    );
}

#[test]
fn a_crash_between_an_entry_and_its_head_costs_the_entry_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let head = dir.path().join("ledger.head");
    let mut ledger = open(dir.path());
    assert!(head.exists(), "before the first entry");
    ledger.reserve("r", "d", &plan(4, Some(1.0)), None, 1).unwrap();
    let before = fs::read(&head).unwrap();
    ledger.spend("r", 1, "u1", 2).unwrap();
    let after = fs::read(&head).unwrap();
    drop(ledger);
    fs::write(&head, &before).unwrap();
    let again = open(dir.path());
    assert_eq!(again.state().runs["r"].updates.len(), 1, "it counts");
    assert_eq!(fs::read(&head).unwrap(), after, "and is pinned again");
}

#[test]
fn an_entry_whose_head_cannot_be_written_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    ledger.reserve("r", "d", &plan(4, Some(1.0)), None, 1).unwrap();
    let head = ledger.head();
    // Nobody, root neither, can write a file where a folder is.
    let block = dir.path().join("ledger.head.new");
    fs::create_dir(&block).unwrap();
    assert!(matches!(ledger.spend("r", 1, "u1", 2), Err(LedgerError::Io { .. })));
    assert_eq!((ledger.head(), ledger.state().runs["r"].updates.len()), (head, 0));
    assert_eq!(open(dir.path()).head(), head, "the entry is cut off again");
    fs::remove_dir(&block).unwrap();
    ledger.spend("r", 1, "u1", 2).unwrap();
    drop(ledger);
    assert_eq!(open(dir.path()).state().runs["r"].updates.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Cut anywhere. With the head of the last whole entry, as a crash leaves it, the file holds
    /// exactly the entries that were whole, and goes on from there; the torn one was never
    /// answered. With a later head, answered entries are gone: refused, whatever the cut.
    #[test]
    fn a_torn_write_loses_only_what_was_never_answered(cut in 0.0..1.0_f64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        let head = dir.path().join("ledger.head");
        let mut ledger = open(dir.path());
        let mut heads = vec![fs::read(&head).unwrap()];
        ledger.reserve("r", "d", &plan(8, Some(2.0)), None, 1).unwrap();
        heads.push(fs::read(&head).unwrap());
        for round in 1..=4 {
            ledger.spend("r", round, &format!("u{round}"), 2).unwrap();
            heads.push(fs::read(&head).unwrap());
        }
        drop(ledger);
        let bytes = fs::read(&path).unwrap();
        let kept = &bytes[..(bytes.len() as f64 * cut) as usize];
        fs::write(&path, kept).unwrap();
        let whole = kept.iter().filter(|&&byte| byte == b'\n').count();
        for (answered, later) in heads.iter().enumerate().skip(whole + 1) {
            fs::write(&head, later).unwrap();
            let error = Ledger::open(&path).unwrap_err();
            let reported = matches!(error, LedgerError::Behind { counted, .. } if counted == answered as u64);
            prop_assert!(reported, "{} of {}: {}", whole, answered, error);
            prop_assert_eq!(&fs::read(&path).unwrap()[..], kept);
        }
        fs::write(&head, &heads[whole]).unwrap();
        let mut again = open(dir.path());
        prop_assert_eq!(again.head().entries, whole as u64);
        again.reserve("r", "d", &plan(8, Some(2.0)), None, 1).unwrap();
        again.spend("r", 9, "u9", 3).unwrap();
        let done = whole.saturating_sub(1) + 1;
        prop_assert_eq!(again.state().runs["r"].updates.len(), done);
        drop(again);
        prop_assert_eq!(open(dir.path()).state().runs["r"].updates.len(), done);
    }

    /// Whatever is asked in whatever order, no domain and no run ever goes above its budget.
    #[test]
    fn no_order_of_requests_overspends(
        requests in prop::collection::vec((0..3_u8, 0..4_u8, 0.7..3.0_f64, 1..6_u32), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path());
        let limit = Limit::new(4.0, 1e-5).unwrap();
        for (number, (what, run, noise, rounds)) in requests.into_iter().enumerate() {
            let run = format!("run-{run}");
            let terms = Terms { noise_multiplier: Some(noise), ..Terms::new(3.0, 1e-5, 1.0) };
            let promise = Privacy::new("example", terms).unwrap();
            let schedule = Schedule { batch: 64, steps: 10, rounds };
            let _ = match (what, ExamplePlan::new(&promise, 2000, schedule)) {
                (0, Ok(plan)) => ledger.reserve(&run, "d", &plan, Some(limit), 0),
                (1, _) => ledger.spend(&run, 1, &format!("update-{number}"), 0),
                _ => ledger.close(&run, 0),
            };
            let mut all = Accountant::new();
            for account in ledger.state().runs.values() {
                prop_assert!(account.released.epsilon_enforced(1e-5).unwrap() <= 3.0);
                account.released.events().iter().for_each(|event| all.record(*event));
            }
            let Some(budget) = ledger.state().domains.get("d").and_then(|domain| domain.budget) else { continue };
            prop_assert!(budget.cost(&all.curve()).unwrap() <= 4.0 + 1e-9);
            prop_assert!(all.epsilon_enforced(1e-5).unwrap() <= 4.0 + 1e-9);
            prop_assert!(budget.cost(&ledger.state().committed("d").unwrap()).unwrap() <= 4.0 + 1e-9);
        }
    }
}

#[test]
fn a_coordinator_enters_every_release() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let event = rondo_dp::Event::new(2.0, 1.0, 1).unwrap();
    let mut ledger = Ledger::open(&path).unwrap();
    for round in [(1, 1), (1, 1), (2, 1)] {
        ledger.release("a", "reviews", round, event, 0).unwrap();
    }
    ledger.release("b", "reviews", (1, 1), event, 0).unwrap();
    assert!(ledger.release("b", "notes", (2, 1), event, 0).is_err());
    drop(ledger);
    let state = Ledger::read(&path).unwrap().state;
    assert_eq!(state.central["a"].releases, [(1, 1), (1, 1), (2, 1)], "a release that is made again is a second one");
    let steps = |released: &Accountant| released.events().iter().map(|event| event.steps()).sum::<u64>();
    assert_eq!((steps(&state.central["a"].released), steps(&state.domains["reviews"].released)), (3, 4));
    assert!(!state.domains.contains_key("notes"));
}
