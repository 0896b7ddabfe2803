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
    ledger.books().runs[run].released.epsilon_enforced(1e-5).unwrap()
}

#[test]
fn a_run_spends_its_rounds_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    let plan = plan(3, None);
    assert!(matches!(ledger.spend("r", 1, "u1", 0), Err(LedgerError::NotReserved { .. })));
    ledger.reserve("r", "d", &plan, None, 0).unwrap();
    for round in 1..=3 {
        ledger.check("r").unwrap();
        ledger.spend("r", round, &format!("u{round}"), 0).unwrap();
    }
    assert!(spent(&ledger, "r") <= 3.0 && spent(&ledger, "r") > 2.99);
    let told = ledger.check("r").unwrap_err().to_string();
    assert!(told.contains("has spent its privacy budget") && told.contains("of 3"), "{told}");
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
fn runs_over_the_same_data_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    let budget = Some(Limit::new(3.6, 1e-5).unwrap());
    ledger.reserve("a", "patients", &plan(3, None), budget, 0).unwrap();
    // A whole plan more does not fit, in another domain it does.
    let told = ledger.reserve("b", "patients", &plan(3, None), budget, 0).unwrap_err().to_string();
    assert!(told.contains("\"patients\" allows epsilon 3.6"), "{told}");
    ledger.reserve("b", "others", &plan(3, None), budget, 0).unwrap();
    // What was reserved and never released is free again; what was released is not.
    ledger.spend("a", 1, "u", 0).unwrap();
    ledger.close("a", 0).unwrap();
    ledger.close("a", 0).unwrap();
    ledger.reserve("c", "patients", &plan(3, None), budget, 0).unwrap();
    let held = ledger.books().domains["patients"].budget.unwrap();
    let cost = held.cost(&ledger.books().committed("patients").unwrap()).unwrap();
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
    let (books, head) = (ledger.books().clone(), ledger.head());
    drop(ledger);
    let again = open(dir.path());
    assert_eq!((again.books(), again.head()), (&books, head));
    assert_eq!(Ledger::read(&dir.path().join("ledger.jsonl")).unwrap(), (books, head));
    let entries = Ledger::entries(&dir.path().join("ledger.jsonl")).unwrap();
    assert_eq!((entries.len(), entries[1].1), (2, head));
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
        let told = Ledger::open(&path).unwrap_err().to_string();
        assert!(told.contains("was changed") && told.contains(&format!("line {line}:")), "{told}\n{edited}");
        assert_eq!(fs::read_to_string(&path).unwrap(), edited);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Cut anywhere, the file holds exactly the entries that were whole, and goes on from there.
    #[test]
    fn a_torn_write_loses_only_what_was_never_answered(cut in 0.0..1.0_f64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        let mut ledger = open(dir.path());
        ledger.reserve("r", "d", &plan(8, Some(2.0)), None, 1).unwrap();
        for round in 1..=4 {
            ledger.spend("r", round, &format!("u{round}"), 2).unwrap();
        }
        drop(ledger);
        let bytes = fs::read(&path).unwrap();
        let kept = &bytes[..(bytes.len() as f64 * cut) as usize];
        fs::write(&path, kept).unwrap();
        let whole = kept.iter().filter(|&&byte| byte == b'\n').count();
        let mut again = open(dir.path());
        prop_assert_eq!(again.head().entries, whole as u64);
        again.reserve("r", "d", &plan(8, Some(2.0)), None, 1).unwrap();
        again.spend("r", 9, "u9", 3).unwrap();
        let done = whole.saturating_sub(1) + 1;
        prop_assert_eq!(again.books().runs["r"].updates.len(), done);
        drop(again);
        prop_assert_eq!(open(dir.path()).books().runs["r"].updates.len(), done);
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
            for books in ledger.books().runs.values() {
                prop_assert!(books.released.epsilon_enforced(1e-5).unwrap() <= 3.0);
                books.released.events().iter().for_each(|event| all.record(*event));
            }
            let Some(budget) = ledger.books().domains.get("d").and_then(|domain| domain.budget) else { continue };
            prop_assert!(budget.cost(&all.curve()).unwrap() <= 4.0 + 1e-9);
            prop_assert!(all.epsilon_enforced(1e-5).unwrap() <= 4.0 + 1e-9);
            prop_assert!(budget.cost(&ledger.books().committed("d").unwrap()).unwrap() <= 4.0 + 1e-9);
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
    let (books, _) = Ledger::read(&path).unwrap();
    assert_eq!(books.central["a"].releases, [(1, 1), (1, 1), (2, 1)], "a release that is made again is a second one");
    let steps = |released: &Accountant| released.events().iter().map(|event| event.steps()).sum::<u64>();
    assert_eq!((steps(&books.central["a"].released), steps(&books.domains["reviews"].released)), (3, 4));
    assert!(!books.domains.contains_key("notes"));
}
