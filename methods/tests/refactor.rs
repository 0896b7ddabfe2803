//! Frozen tensors that the coordinator derives anew: clients must train with those in force, not
//! with their own start.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod suite;

use rondo_methods::{Kind, Registry, Tensor, TensorFile, TensorSet};
use suite::{Federation, distance, weighted};

fn factor_a(tensors: &TensorSet) -> Vec<(&String, &Tensor)> {
    tensors.iter().filter(|(name, _)| name.ends_with(".lora_A")).collect()
}

/// With p = 2 the rounds 1 and 2 train with the seeded A, 3 and 4 with the A of the second, 5 with
/// that of the fourth.
#[test]
fn rounds_train_with_the_a_of_the_latest_refactoring() {
    let mut federation = Federation::start(&Registry::builtin(), "ffa-lora", 3, "refactor_every = 2", "");
    let mut used = vec![federation.job.initial(1, "anna", 0)];
    for round in 1..=5 {
        let state = federation.state("anna", 0);
        assert_eq!(factor_a(&state.tensors), factor_a(used.last().unwrap()), "round {round}");
        let trained = federation.three();
        let terms: Vec<_> = trained.iter().map(|t| (t.weight, federation.own_deltas(t))).collect();
        let updates = trained.iter().map(|trained| federation.upload(trained)).collect();
        let output = federation.finish(Kind::Train, updates).unwrap();
        assert!(output.error.unwrap() < 1e-6, "round {round}");
        // What a client makes of the two files together is the mean of what was trained.
        let after = federation.deltas(&federation.state("anna", 0));
        assert!(distance(&after, &weighted(&terms)) < 1e-6, "round {round}");
        assert_eq!(output.frozen.is_some(), round % 2 == 0, "round {round}");
        if let Some(frozen) = &output.frozen {
            let renewed = TensorFile::open(frozen).unwrap().read_all(|_| true).unwrap();
            assert_eq!(factor_a(&renewed).len(), federation.job.targets().len());
            assert_ne!(factor_a(&renewed), factor_a(used.last().unwrap()));
            used.push(renewed);
        }
    }
    assert_eq!(used.len(), 3);
}
