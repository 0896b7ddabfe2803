use rondo_proto::Digest;

use super::*;
use crate::config::PrivacyBudget;
use crate::spool::{Charge, Facts, Key};

fn run(privacy: &str) -> RunFile {
    let text = format!(
        "name = \"r\"\nbase = {{ model = \"tiny\" }}\n\
         task = {{ kind = \"classification\", dataset = \"reviews\", labels = [\"a\", \"b\"] }}\n\
         method = {{ id = \"fedit\", rank = 2, targets = [\"query\"] }}\n\
         train = {{ local_steps = 2, batch = 8, lr = 1e-3 }}\nrounds = {{ count = 4, cohort = 2, quorum = 1 }}\n{privacy}"
    );
    RunFile::parse(&text).unwrap()
}

fn private(unit: &str) -> RunFile {
    run(&format!("privacy = {{ unit = \"{unit}\", epsilon = 4.0, delta = 1e-3, clip = 1.0 }}"))
}

fn guard(path: &Path, budget: Option<f64>, datasets: &[&str]) -> PrivacyGuard {
    let declared = |epsilon| PrivacyBudget { domain: "reviews".to_owned(), epsilon, delta: 1e-3 };
    let config = Config {
        datasets: datasets.iter().map(|name| Source::new(*name, "x")).collect(),
        privacy: budget.map(declared).into_iter().collect(),
        ..Config::default()
    };
    PrivacyGuard::open(&path.join("ledger.jsonl"), Arc::new(config)).unwrap()
}

fn entry(id: &RunId, round: u32) -> Entry {
    Entry {
        key: Key { run: id.clone(), round, attempt: 1 },
        digest: Digest::of(&[round as u8]),
        bytes: 1,
        path: "x".into(),
        facts: Facts {
            examples: 0,
            train_loss: 0.0,
            train_seconds: 0.0,
            rank: 2,
            base_version: 0,
            before: None,
            charge: Charge::Due,
        },
        accepted: false,
    }
}

#[test]
fn a_budget_declared_or_lowered_later_binds_the_runs_that_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let id = RunId::new("r-1").unwrap();
    let source = Source::new("reviews", "x");
    let open = |budget| guard(dir.path(), budget, &["reviews"]);
    let free = open(None);
    free.reserve(&id, &private("example"), &source, 100).unwrap();
    let spent = free.release(&entry(&id, 1)).unwrap();
    free.check(&id, 1).unwrap();
    drop(free);

    let small = open(Some(spent.epsilon));
    let refused = small.check(&id, 1).unwrap_err();
    assert!(matches!(&refused, LedgerError::Budget { domain, .. } if domain == "reviews"), "{refused}");
    assert!(matches!(small.release(&entry(&id, 2)).unwrap_err(), LedgerError::Budget { .. }));
    // What was paid for before is the same bytes, and the run's own plan is as it was.
    small.release(&entry(&id, 1)).unwrap();
    assert!(small.reserve(&id, &private("example"), &source, 100).unwrap().is_some());
    drop(small);

    let large = open(Some(2.0 * spent.next_epsilon));
    large.check(&id, 1).unwrap();
    large.release(&entry(&id, 2)).unwrap();
}

#[test]
fn a_budgeted_domain_is_for_privacy_per_example_alone() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::new("reviews", "x");
    let free = guard(dir.path(), None, &["reviews"]);
    let bound = guard(dir.path(), Some(8.0), &["reviews"]);
    for file in [run(""), private("client")] {
        free.check_dataset(&file, &source, false).unwrap();
        let refused = bound.check_dataset(&file, &source, false).unwrap_err().to_string();
        assert!(refused.contains("data set \"reviews\" has a privacy budget here"), "{refused}");
    }
    bound.check_dataset(&private("example"), &source, false).unwrap();
    for file in [run(""), private("example")] {
        assert!(
            bound.check_dataset(&file, &source, true).unwrap_err().to_string().contains("has a privacy budget here")
        );
    }
    free.check_dataset(&run(""), &source, true).unwrap();
    let refused = free.check_dataset(&private("client"), &source, true).unwrap_err().to_string();
    assert!(refused.contains("does not call data set \"reviews\" public"), "{refused}");
    free.check_dataset(&private("client"), &Source { public: true, ..source }, true).unwrap();
}

#[test]
fn a_domain_that_no_data_set_names_any_more_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let id = RunId::new("r-1").unwrap();
    let first = guard(dir.path(), None, &["reviews"]);
    first.reserve(&id, &private("example"), &Source::new("reviews", "x"), 100).unwrap();
    assert!(guard(dir.path(), None, &["opinions"]).unnamed_domains().is_empty(), "nothing is released of it yet");
    first.release(&entry(&id, 1)).unwrap();
    assert!(first.unnamed_domains().is_empty());
    assert_eq!(guard(dir.path(), None, &["opinions"]).unnamed_domains(), ["reviews"]);
}

/// A new ledger in place of a lost one would hold every budget again.
#[test]
fn a_folder_that_has_lost_its_whole_ledger_is_refused() {
    for evidence in ["history.jsonl", "answers.json"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        drop(PrivacyGuard::open(&path, Arc::new(Config::default())).unwrap());
        std::fs::write(dir.path().join(evidence), "[]").unwrap();
        drop(PrivacyGuard::open(&path, Arc::new(Config::default())).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(path.with_extension("head")).unwrap();
        let said = PrivacyGuard::open(&path, Arc::new(Config::default())).err().unwrap().to_string();
        assert!(said.contains("both missing") && said.contains(evidence) && said.contains("--new-ledger"), "{said}");
    }
}
