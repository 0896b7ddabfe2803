//! What a site can say of itself: `check` without a run, `declare` after one.

use std::fs;
use std::path::Path;

use rondo_client::commands::check::{CheckArgs, check};
use rondo_client::commands::declare::{DeclareArgs, declare};
use rondo_client::commands::history::{HistoryArgs, history};
use serde_json::Value;

use crate::machine::Machine;

/// Puts an identity into a folder whose certificate ends in this year.
fn enrol(dir: &Path, ends: i32) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["movies".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(ends, 1, 1);
    let pem = params.self_signed(&key).unwrap().pem();
    fs::write(
        dir.join("identity.toml"),
        "url = \"https://fl.example.org:7461\"\nname = \"movies\"\nrole = \"client\"\n",
    )
    .unwrap();
    fs::write(dir.join("ca.pem"), &pem).unwrap();
    fs::write(dir.join("cert.pem"), &pem).unwrap();
    let file = dir.join("key.pem");
    fs::write(&file, key.serialize_pem()).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// The report, and whether the site can serve.
fn checked(machine: &Machine) -> (Value, bool) {
    let dir = machine.dir.path().to_owned();
    fs::write(dir.join("client.toml"), &machine.config).unwrap();
    let mut out = Vec::new();
    let passed = check(&CheckArgs { dir, config: None, json: true }, &mut out).is_ok();
    (serde_json::from_slice(&out).unwrap(), passed)
}

#[test]
fn a_site_is_checked_without_a_run() {
    let mut machine = Machine::new();
    enrol(machine.dir.path(), 2999);
    let (report, passed) = checked(&machine);
    assert!(passed, "{report:#}");
    assert_eq!(report["models"][0]["digest"], machine.base.digest);
    let task = &report["datasets"][0]["serves"][0];
    assert_eq!(
        (&task["task"], &task["labels"]),
        (&"classification".into(), &serde_json::json!({"bad": 30, "good": 30}))
    );
    assert_eq!(task["train"].as_u64().unwrap() + task["held_out"].as_u64().unwrap(), 60);
    assert_eq!((&report["policy"]["min_group"], &report["policy"]["approve"]), (&10.into(), &"auto".into()));
    assert!(report["disk_free"].as_u64().is_some_and(|bytes| bytes > 0));

    let sound = machine.config.clone();
    let faults = [
        (sound.replace("reviews.tsv", "absent.tsv"), "cannot open"),
        (sound.replace("tiny-bert", "no-such-model"), "model in"),
        (sound.replace("eval_fraction = 0.3", "label = \"verdict\""), "missing column `verdict`"),
        ("[policy]\nmin_group = 1\n".to_owned() + &sound, "the least is 2"),
        (String::new(), "no [[model]]"),
    ];
    for (config, says) in faults {
        machine.config = config;
        let (report, passed) = checked(&machine);
        let problems = report["problems"].to_string();
        assert!(!passed && problems.contains(says), "{problems} should contain {says:?}");
    }
    machine.config = sound;
    enrol(machine.dir.path(), 2021);
    let (report, passed) = checked(&machine);
    assert!(!passed && report["problems"].to_string().contains("expired"), "{report:#}");
    fs::remove_file(machine.dir.path().join("identity.toml")).unwrap();
    assert!(!checked(&machine).1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_says_what_left_in_a_run() {
    let mut machine = Machine::new();
    let dir = machine.dir.path().to_owned();
    enrol(&dir, 2999);
    machine.client = "movies";
    let run_file =
        machine.run_file("ffa-lora", 2) + "privacy = { unit = \"example\", epsilon = 8.0, delta = 1e-3, clip = 1.0 }\n";
    machine.invite("one", &run_file);
    machine.train("one", 1, &run_file);
    machine.start();
    machine.coordinator.until("the update", |book| book.accepted.len() == 1).await;
    machine.stop().await;

    let out = dir.join("declaration.md");
    let declared = |run: &str| {
        let args = DeclareArgs { dir: dir.clone(), config: None, run: run.to_owned(), out: out.clone(), json: false };
        declare(&args, &mut Vec::new()).map(|()| fs::read_to_string(&out).unwrap())
    };
    let page = declared("one").unwrap();
    let digest = machine.coordinator.book().uploads.values().next().unwrap().1.key.clone().unwrap().digest;
    for part in [
        "# Declaration on run one",
        "https://fl.example.org:7461",
        "method ffa-lora, 2 rounds of 3 steps of 4 rows",
        machine.base.digest.as_str(),
        "data set \"reviews\"",
        "epsilon 8 at delta 1e-3",
        "1 updates were released",
        digest.as_str(),
        "digest that pins this client's privacy ledger",
        "the policy alone decides on runs",
    ] {
        assert!(page.contains(part), "{page}\nshould contain {part:?}");
    }
    // A private run sends no losses.
    assert!(!page.contains("mean training loss"), "{page}");
    let unknown = declared("two").unwrap_err().to_string();
    assert!(unknown.contains("no terms of run \"two\"") && unknown.contains("those of: one"), "{unknown}");

    let mut listed = Vec::new();
    history(&HistoryArgs { dir: dir.clone(), run: Some("one".to_owned()), json: false }, &mut listed).unwrap();
    let listed = String::from_utf8(listed).unwrap();
    assert!(listed.contains("kept since") && listed.contains(&digest) && listed.contains("2 messages"), "{listed}");
    // A folder of an earlier version has no record yet.
    fs::remove_file(dir.join("history.jsonl")).unwrap();
    let mut listed = Vec::new();
    history(&HistoryArgs { dir, run: None, json: false }, &mut listed).unwrap();
    assert!(String::from_utf8(listed).unwrap().contains("no history is kept here yet"));
}
