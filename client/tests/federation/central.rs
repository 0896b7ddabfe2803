//! A run that promises privacy per client, with real clients.

use std::sync::Arc;

use rondo_coordinator::config::Config;
use rondo_proto::v1;

use crate::client::{Client, model_dir, run_file};
use crate::coordinator::{Coordinator, Shifted};

/// A run of two clients that has completed.
struct Ended {
    run: v1::RunSummary,
    rounds: Vec<v1::RoundRecord>,
    logs: Vec<String>,
}

/// Holds a run to its end.
async fn held(method: &str, tables: &str) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::new(&dir.path().join("data"), Config::default(), Arc::<Shifted>::default());
    let base = rondo_base::describe(&model_dir(), "tiny").unwrap();
    let run_file = run_file(&base, method, tables);
    let mut clients = Vec::new();
    for name in ["books", "films"] {
        clients.push(Client::join(&coordinator, dir.path(), name).await);
        coordinator.until_seen(name).await;
    }
    let run = coordinator.create_run(base, run_file).await;
    let run = coordinator.until(&run, "the run ends", |run| run.phase == "ended").await;
    assert_eq!(run.outcome, "completed", "{run:#?}");
    let rounds = coordinator.rounds(&run.run).await;
    Ended { run, rounds, logs: clients.iter().map(Client::log).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_updates_are_clipped_at_home_and_noised_in_their_sum() {
    // A clip below what a round changes, so that a client that did not clip were refused.
    let Ended { run, rounds, logs } = held(
        "rolora",
        r#"
        train = { local_steps = 10, batch = 8, lr = 1e-2 }
        rounds = { count = 3, cohort = 2, quorum = 2, deadline_s = 120, grace_s = 60 }
        privacy = { unit = "client", epsilon = 8.0, delta = 1e-5, clip = 0.01 }
        "#,
    )
    .await;
    assert!(run.privacy.starts_with("(8, 1e-5)-differential privacy per client"), "{}", run.privacy);
    for record in rounds {
        let released = record.released.clone().unwrap();
        assert_eq!(released.total_steps, record.round);
        assert!(released.epsilon <= 8.0 && released.epsilon_pld <= released.epsilon);
        for part in &record.participants {
            assert_eq!((part.state.as_str(), part.examples, part.train_loss), ("accepted", 0, 0.0), "{part:#?}");
            assert_eq!((part.train_seconds, part.update_norm), (0.0, 0.0));
            assert!(part.before.is_none() && part.after.is_none() && part.privacy.is_none());
        }
    }
    assert!(logs.iter().all(|log| log.matches("WholeChange { clip: 0.01 }").count() == 3), "{logs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_warm_up_is_released_as_a_round_is() {
    let Ended { run, rounds, .. } = held(
        "fed-sb",
        r#"
        train = { local_steps = 2, batch = 8, lr = 1e-2 }
        rounds = { count = 2, cohort = 2, quorum = 2, deadline_s = 120, grace_s = 60 }
        privacy = { unit = "client", epsilon = 8.0, delta = 1e-5, clip = 0.01, warm_up_clip = 1e-3 }
        "#,
    )
    .await;
    assert!(run.privacy.contains("in 3 releases"), "{}", run.privacy);
    assert_eq!(rounds.iter().map(|record| record.round).collect::<Vec<_>>(), [0, 1, 2]);
    for record in rounds {
        let released = record.released.clone().unwrap();
        assert_eq!(
            (released.total_steps, released.clip),
            (record.round + 1, [1e-3, 0.01, 0.01][record.round as usize])
        );
        assert!(released.epsilon <= 8.0 && !released.ledger_head.is_empty());
        for part in &record.participants {
            assert_eq!((part.state.as_str(), part.examples, part.train_loss), ("accepted", 0, 0.0), "{part:#?}");
            assert!(part.update_digest.is_empty() && part.update_norm == 0.0 && part.privacy.is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_that_is_too_small_grows_from_round_to_round() {
    // So little noise protects nobody; more would ask for more clients than a test has.
    let Ended { rounds, .. } = held(
        "ffa-lora",
        r#"
        train = { local_steps = 2, batch = 8, lr = 1e-2 }
        rounds = { count = 3, cohort = 2, quorum = 2, deadline_s = 120, grace_s = 60 }
        privacy = { unit = "client", epsilon = 1e6, delta = 1e-5, clip = 1e-4, noise_multiplier = 0.05, clip_quantile = 0.5 }
        "#,
    )
    .await;
    let clips: Vec<f64> = rounds.iter().map(|record| record.released.as_ref().unwrap().clip).collect();
    assert_eq!(clips[0], 1e-4);
    // Both changes are clipped in every round: by e^0.1, give or take the count's noise. Clients
    // that did not follow would be refused at the door.
    assert!(clips.windows(2).all(|pair| (pair[1] / pair[0]).ln() > 0.02), "{clips:?}");
}
