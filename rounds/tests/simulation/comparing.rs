//! Rounds that are compared: the best one, roll-backs, and what goes back with them.

use rondo_proto::v1;

use crate::model::{Course, Op, Setup};
use crate::run::simulate;
use crate::world::World;

/// A run in which the second round is the best, the third is a little worse, and the fourth much
/// worse.
fn wild(setup: Setup) -> Setup {
    let falls_back = |seed: &u64| {
        let losses: Vec<f64> = (1..=setup.rounds).map(|round| losses(&Setup { seed: *seed, ..setup }, round)).collect();
        let best = losses.iter().copied().reduce(f64::min).unwrap();
        // The round after the best one stands, so going back to the best is more than leaving out
        // the last.
        let stands = losses[2] < best * 1.15;
        losses[0] > best && stands && losses[3] > best * 1.3 && losses[1] == best
    };
    let setup = Setup { course: Course::Wild, ..setup };
    let seed = (1..5000).find(|seed| falls_back(seed)).unwrap();
    Setup { seed, ..setup }
}

/// The mean loss that all three clients measure.
fn losses(setup: &Setup, round: u32) -> f64 {
    let setup = Setup { course: Course::Wild, ..*setup };
    let measured: Vec<v1::Evaluation> = (0..3).map(|client| setup.evaluation(round, client)).collect();
    let examples: f64 = measured.iter().map(|evaluation| evaluation.examples as f64).sum();
    measured.iter().map(|evaluation| evaluation.loss * evaluation.examples as f64).sum::<f64>() / examples
}

fn three() -> Setup {
    wild(Setup { clients: 3, rounds: 4, ..Setup::default() })
}

#[test]
fn the_best_round_is_named_and_handed_out_where_it_is_kept() {
    for keep_best in [false, true] {
        let world = simulate(Setup { keep_best, ..three() }, &[]);
        let summary = world.engine.run_summary(&world.runs[0]).unwrap();
        assert_eq!((summary.best_round, summary.keep.as_str()), (Some(2), if keep_best { "best" } else { "last" }));
        assert!((summary.best_loss.unwrap() - losses(&world.setup, 2)).abs() < 1e-12);
        let kept = if keep_best { 2 } else { 4 };
        let adapter = summary.adapter.unwrap();
        assert_eq!((adapter.round, &adapter.published[0].digest), (kept, &world.closed(kept).global_digest));
        // What the run hands out without a word is the same, and every round can still be asked
        // for.
        assert_eq!(world.engine.adapter_state(&world.runs[0], None).unwrap(), adapter);
        assert_eq!(world.engine.adapter_state(&world.runs[0], Some(4)).unwrap().round, 4);
        assert!(world.engine.events(&world.runs[0], 0).iter().any(|event| event.text.ends_with("the best so far")));
    }
}

#[test]
fn a_round_that_is_taken_back_leaves_the_state_of_the_best() {
    // By method: one that replaces, one that refactors, one that accumulates, one with a warm-up.
    for (method, refactor_every) in [(0, 0), (1, 1), (2, 0), (3, 0), (5, 0)] {
        let setup = Setup { method, refactor_every, server: true, rollback: Some(20), rounds: 5, ..three() };
        let mut world = World::new(setup);
        // Whatever the losses, in the next round stands what stood when the best round was closed.
        let mut stood = Vec::new();
        let mut taken_back = 0;
        for round in 1..5 {
            world.reach(round + 1);
            let closed = world.closed(round);
            let state = world.engine.adapter_state(&world.runs[0], None).unwrap_or_default();
            match closed.rolled_back_to {
                None => stood.push((round, state)),
                Some(to) => {
                    taken_back += 1;
                    let best = stood.iter().find(|(round, _)| *round == to).unwrap();
                    assert_eq!(best.1, state, "{}: round {round} went back to {to}", setup.method_id());
                    let note = closed.notes.iter().find(|note| note.contains("rolled back to round")).unwrap();
                    assert!(note.contains(&format!("round {to}: its held-out loss is")), "{note}");
                    // The next updates are made on that version of the base.
                    let assignment = world.devices.iter().find_map(|device| device.assignment.clone()).unwrap();
                    assert_eq!(assignment.state.unwrap(), state);
                    // Its own adapter can still be looked at.
                    let own = world.engine.adapter_state(&world.runs[0], Some(round)).unwrap();
                    assert_eq!(own.published.last().unwrap().digest, closed.global_digest);
                }
            }
        }
        assert!(taken_back > 0, "{}", setup.method_id());
        world.heal();
        assert_eq!(
            (world.outcome(0).as_str(), world.engine.rounds(&world.runs[0]).len()),
            ("completed", 5 + usize::from(method == 3))
        );
    }
}

#[test]
fn a_roll_back_survives_a_crash_before_and_after_its_commit() {
    for (method, crash) in [(0, Op::CrashBeforeCommit), (0, Op::CrashAfterCommit), (2, Op::CrashAfterCommit)] {
        // All three in every round: a mean over two would be another course, and no fault.
        let setup = Setup { rollback: Some(20), server: true, method, quorum: 3, ..three() };
        let calm = simulate(setup, &[]);
        let mut world = World::new(setup);
        for _ in 0..200 {
            world.carry_out(crash);
            world.everybody_works();
        }
        world.heal();
        let course = |world: &World| {
            let rounds = world.engine.rounds(&world.runs[0]);
            rounds.iter().map(|record| (record.rolled_back_to, record.best_round)).collect::<Vec<_>>()
        };
        assert_eq!(course(&world), course(&calm), "{crash:?}");
    }
}

#[test]
fn without_a_best_round_a_divergence_goes_back_to_the_start() {
    let setup = Setup { clients: 3, rounds: 2, rollback: Some(10), server: true, method: 3, ..Setup::default() };
    let mut world = World::new(setup);
    world.reach(1);
    let warm_up = world.engine.adapter_state(&world.runs[0], None).unwrap();
    while world.phase_of_first() != "publishing" {
        for client in 0..3 {
            world.obey(client);
            world.work(client);
            world.carry_out(Op::Upload(client));
        }
        world.carry_out(Op::Aggregate);
    }
    let server = world.open().server_digest.parse().unwrap();
    assert!(world.blobs.contains_key(&server));
    let run = world.runs[0].clone();
    for client in 0..3 {
        world.obey(client);
        let loss = if client == 0 { f64::INFINITY } else { 0.5 };
        let client = world.devices[client].name.clone();
        let evaluation = v1::Evaluation { loss, accuracy: 0.5, examples: 8, ..Default::default() };
        world
            .step(rondo_rounds::Input::Evaluated { client, run: run.clone(), round: 1, evaluation, min_group: 0 })
            .reply();
    }
    let closed = world.closed(1);
    assert_eq!((closed.held_out_loss, closed.best_round, closed.rolled_back_to), (None, None, Some(0)));
    assert!(closed.notes.iter().any(|note| note.contains("rolled back to the start")), "{:?}", closed.notes);
    assert_eq!(world.engine.adapter_state(&run, None).unwrap(), warm_up);
    assert!(!world.blobs.contains_key(&server), "nobody starts from it any more");
}

#[test]
fn the_server_optimiser_goes_on_from_its_own_state_and_nobody_else_sees_it() {
    let mut world = World::new(Setup { clients: 3, rounds: 3, server: true, ..Setup::default() });
    for round in 1..=3 {
        world.gather();
        (0..3).for_each(|client| drop(world.deliver(client)));
        let plan = world.queue.front().unwrap().clone();
        let before = (round > 1).then(|| world.closed(round - 1).server_digest);
        assert_eq!(plan.server.map(|digest| digest.to_string()), before);
        // A restart orders the same.
        world.restart();
        assert_eq!(world.queue.front(), Some(&plan));
        world.carry_out(Op::Aggregate);
        assert_eq!(world.blobs.len(), round as usize + 1, "one state is kept, of the latest round");
        (0..3).for_each(|client| world.obey(client));
        (0..3).for_each(|client| world.work(client));
        assert!(!world.closed(round).server_digest.is_empty());
    }
    assert_eq!(world.outcome(0), "completed");
    assert_eq!(world.blobs.len(), 3, "a run that has ended needs no state of its optimiser");
}
