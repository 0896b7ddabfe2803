//! A whole run over data with a group of a single person: nothing that the coordinator holds or
//! tells knows of it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rondo_coordinator::config::Config;

use crate::client::{Client, model_dir, run_file};
use crate::coordinator::{Coordinator, End, Shifted};

/// A name that stands nowhere else.
const RARE: &str = "porphyria-cutanea";
const NAMES: [&str; 2] = ["books", "films"];

/// Gives every row a ward, and seven rows the rare one.
fn with_wards(dir: &Path) {
    let rows = fs::read_to_string(dir.join("reviews.tsv")).unwrap();
    let mut lines = rows.lines().enumerate().map(|(number, line)| match number {
        0 => format!("{line}\tward\n"),
        number if number % 10 == 3 => format!("{line}\t{RARE}\n"),
        number => format!("{line}\t{}\n", ["cardiology", "oncology"][number / 2 % 2]),
    });
    let rows: String = lines.by_ref().collect();
    fs::write(dir.join("reviews.tsv"), rows).unwrap();
    let config = fs::read_to_string(dir.join("client.toml")).unwrap();
    let config = config.replace("eval_fraction = 0.25", "eval_fraction = 0.75\ngroup = \"ward\"");
    fs::write(dir.join("client.toml"), config + "[policy]\nreport_groups = true\n").unwrap();
}

/// Whether some file below a folder holds these bytes.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => holds(&path, bytes),
        false => fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_small_group_is_anywhere_after_a_whole_run() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut coordinator = Coordinator::new(&data, Config::default(), Arc::<Shifted>::default());
    let base = rondo_base::describe(&model_dir(), "tiny").unwrap();
    let mut clients = Vec::new();
    for name in NAMES {
        let folder = Client::enrol(&coordinator, dir.path(), name).await;
        with_wards(&folder);
        clients.push(Client::start(name, folder));
    }
    for name in NAMES {
        coordinator.until_seen(name).await;
    }
    let tables = "train = { local_steps = 4, batch = 4, lr = 1e-3 }\n\
                  rounds = { count = 2, cohort = 2, quorum = 2, deadline_s = 120 }";
    let run = coordinator.create_run(base.clone(), run_file(&base, "ffa-lora", tables)).await;
    let summary = coordinator.until(&run, "the run ends", |run| run.outcome == "completed").await;
    let rounds = coordinator.rounds(&run).await;

    // There are groups, none is small, and they add up to the whole.
    let parts = rounds.iter().flat_map(|record| &record.participants);
    let measured: Vec<_> = parts.flat_map(|part| part.before.iter().chain(&part.after)).collect();
    assert!(measured.len() >= 6, "{rounds:#?}");
    for evaluation in measured {
        assert!(evaluation.groups.len() == 2, "{evaluation:?}");
        assert!(evaluation.groups.iter().all(|group| group.examples >= 10), "{evaluation:?}");
        assert_eq!(evaluation.groups.iter().map(|group| group.examples).sum::<u64>(), evaluation.examples);
    }
    let told = serde_json::to_string(&(&summary, &rounds)).unwrap();
    assert!(told.contains("\"other\"") && !told.contains(RARE), "{told}");
    coordinator.stop(End::Graceful);
    assert!(holds(&data, b"other"), "the search finds what is there");
    assert!(!holds(&data, RARE.as_bytes()));
}
