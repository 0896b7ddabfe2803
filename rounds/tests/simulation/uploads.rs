//! Updates that come twice, late, too many or wrong.

use rondo_proto::v1;
use rondo_rounds::{Input, Rejection, Reply, UploadOutcome};

use crate::lifecycle::accepted;
use crate::model::{Op, Setup, Wrong};
use crate::world::{RANK, World};

#[test]
fn an_update_counts_once_however_often_it_comes() {
    let mut world = World::new(Setup { clients: 3, ..Setup::default() });
    world.gather();
    assert_eq!(world.deliver(0), accepted());
    assert_eq!(world.deliver(0), accepted());
    let assignment = world.devices[0].assignment.clone().unwrap();
    let other = world.pack(0, &assignment, " other");
    match world.upload(0, &other).rejection() {
        Rejection::AnotherUpdate { first, second, .. } => {
            assert_ne!(first, second);
            assert_eq!(second, other.update.digest);
        }
        other => panic!("{other}"),
    }
    assert_eq!(world.participant(0).bytes_up, 1000);
    world.deliver(1);
    world.deliver(2);
    world.carry_out(Op::Aggregate);
    (0..3).for_each(|client| world.obey(client));
    (0..3).for_each(|client| world.work(client));
    assert_eq!(world.closed(1).participants.len(), 3);
    // The round is closed and the answer still the same; a stranger's update is refused.
    world.carry_out(Op::Repeat);
    let packed = world.pack(0, &assignment, "");
    assert_eq!(world.upload(0, &packed).reply(), accepted());
    assert!(matches!(world.upload(0, &other).rejection(), Rejection::WrongRound { round: 2, got_round: 1, .. }));
}

#[test]
fn beyond_the_cohort_updates_are_spare() {
    let mut world = World::new(Setup { clients: 4, over_select: 1, ..Setup::default() });
    world.gather();
    assert_eq!(world.cohort().len(), 4);
    [3, 1, 0].into_iter().for_each(|client| assert_eq!(world.deliver(client), accepted()));
    assert_eq!(world.phase_of_first(), "aggregating");
    assert_eq!(world.participant(2).state, "spare");
    let spare = world.devices[2].assignment.clone().unwrap();
    let packed = world.pack(2, &spare, "");
    assert_eq!(world.upload(2, &packed).reply(), Reply::Upload(UploadOutcome::Spare));
    assert!(!world.blobs.contains_key(&packed.update.digest));
    assert_eq!(world.participant(2).bytes_up, 1000);
    let beat = |world: &mut World, state: &str| {
        let client = world.devices[2].name.clone();
        let work = packed.work.clone();
        let state = state.to_owned();
        match world.step(Input::Heartbeat { client, work, state, step: 1, steps: 2, loss: 0.5 }).reply() {
            Reply::Heartbeat { stop, reason } => (stop, reason),
            other => panic!("{other:?}"),
        }
    };
    let (stop, reason) = beat(&mut world, "training");
    assert!(stop && reason.contains("the cohort was full"), "{reason}");
    world.carry_out(Op::Aggregate);
    assert!(beat(&mut world, "training").0);
    assert!(!beat(&mut world, "evaluating").0);
    // A spare client measures the adapter like the others.
    world.obey(2);
    assert_eq!(world.devices[2].assignment.as_ref().unwrap().kind(), v1::WorkKind::Evaluate);
    assert!(world.devices[2].assignment.as_ref().unwrap().upload_settled);
}

#[test]
fn updates_that_cannot_be_right_are_refused() {
    let mut world = World::new(Setup { clients: 6, cohort: 6, ..Setup::default() });
    world.devices[5].max_rank = 0;
    world.gather();
    for (client, wrong, words) in [
        (0, Wrong::Empty, "no training example"),
        (1, Wrong::Loss, "training loss is NaN"),
        (2, Wrong::Norm, "norm is inf"),
    ] {
        let assignment = world.devices[client].assignment.clone().unwrap();
        let packed = World::spoil(&world.pack(client, &assignment, ""), wrong);
        match world.upload(client, &packed).reply() {
            Reply::Upload(UploadOutcome::Refused { reason }) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert!(world.participant(client).reason.contains(words));
        assert!(!world.blobs.contains_key(&packed.update.digest));
    }
    // With another rank than agreed it may train again.
    let assignment = world.devices[3].assignment.clone().unwrap();
    let packed = World::spoil(&world.pack(3, &assignment, ""), Wrong::Rank);
    let rejection = world.upload(3, &packed).rejection();
    assert!(matches!(rejection, Rejection::UpdateRank { expected: RANK, .. }), "{rejection}");
    assert_eq!(world.deliver(3), accepted());
}

#[test]
fn a_stack_needs_the_version_it_was_trained_on() {
    let mut world = World::new(Setup { method: 2, clients: 3, rounds: 3, ..Setup::default() });
    world.reach(3);
    let assignment = world.devices[1].assignment.clone().unwrap();
    let published = assignment.state.as_ref().unwrap().published.iter().map(|entry| entry.round);
    assert_eq!(published.collect::<Vec<_>>(), [1, 2]);
    let mut packed = world.pack(1, &assignment, "");
    packed.update.base_version = 1;
    let rejection = world.upload(1, &packed).rejection();
    assert!(matches!(rejection, Rejection::BaseVersion { expected: 2, got: 1, .. }), "{rejection}");
    assert!(rejection.to_string().contains("version 1") && rejection.to_string().contains("version 2"));
    assert_eq!(world.deliver(1), accepted());
}

#[test]
fn equal_updates_share_a_blob_and_an_aggregate_may_equal_its_only_update() {
    let mut world = World::new(Setup { clients: 1, cohort: 1, quorum: 1, rounds: 1, ..Setup::default() });
    world.gather();
    assert_eq!(world.deliver(0), accepted());
    let plan = world.queue.pop_front().unwrap();
    let same = plan.updates[0].digest;
    let input = Input::Aggregated {
        work: plan.work,
        global: same,
        global_bytes: 10,
        frozen: None,
        frozen_bytes: 0,
        server: None,
        next_clip: None,
        ledger_head: String::new(),
        error: Some(f64::NAN),
        notes: Vec::new(),
    };
    world.step(input.clone()).reply();
    // The result that comes twice changes nothing and drops nothing.
    world.step(input).reply();
    assert!(world.blobs.contains_key(&same));
    world.heal();
    assert!(world.closed(1).notes[0].contains("not a number"));
    assert_eq!(world.closed(1).aggregation_error, None);
}
