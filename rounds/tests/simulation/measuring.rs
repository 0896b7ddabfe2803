//! Measuring at one named client.

use rondo_proto::error::ErrorCode;
use rondo_proto::{RunId, v1};
use rondo_rounds::{Input, Rejection};

use crate::lifecycle::accepted;
use crate::model::{Measures, Op, Setup};
use crate::run::simulate;
use crate::world::{DEADLINE_S, KEY, PUBLIC, World};

/// Three clients that train, and a fourth that measures.
fn setup() -> Setup {
    Setup { clients: 3, measures: Measures::Outsider, ..Setup::default() }
}

/// The same, brought to where the fourth is asked.
fn published() -> World {
    let mut world = World::new(setup());
    (0..3).for_each(|client| world.obey(client));
    (0..3).for_each(|client| world.obey(client));
    (0..3).for_each(|client| assert_eq!(world.deliver(client), accepted()));
    world.carry_out(Op::Aggregate);
    assert_eq!(world.phase_of_first(), "publishing");
    world
}

fn measurement(world: &World, round: u32) -> v1::Measurement {
    world.engine.round_record(&world.runs[0], round).unwrap().measurement.unwrap()
}

#[test]
fn one_who_trains_or_one_who_does_not_measures_alone() {
    for (measures, client) in [(Measures::ClientZero, "c0"), (Measures::Outsider, "c3")] {
        let world = simulate(Setup { measures, ..setup() }, &[]);
        assert_eq!(world.outcome(0), "completed");
        for round in [1, 2] {
            let record = world.closed(round);
            let measured = record.measurement.unwrap();
            assert_eq!((measured.client.as_str(), measured.dataset.as_str()), (client, PUBLIC));
            assert_eq!((measured.state.as_str(), measured.after.unwrap().loss), ("done", 0.25));
            assert_eq!(record.held_out_loss, Some(0.25));
            assert!(record.participants.iter().all(|part| part.state == "accepted"));
        }
        let summary = world.engine.run_summary(&world.runs[0]).unwrap();
        assert_eq!((summary.evaluation_client.as_str(), summary.evaluation_dataset.as_str()), (client, PUBLIC));
    }
}

#[test]
fn its_downloads_count_with_the_measurement_and_not_with_training() {
    let mut world = published();
    world.obey(3);
    assert_eq!(world.devices[3].assignment.as_ref().unwrap().rank, crate::world::RANK);
    world.download(3);
    let measured = measurement(&world, 1);
    // FedIT's A [4, 16] and B [16, 4] of two targets, and the head [2, 16] + [2], in f32.
    assert_eq!((measured.bytes_down, measured.layout_bytes_down), (120, (2 * 2 * 64 + 34) * 4));
    assert_eq!(measured.state, "evaluating");
    world.work(3);
    let closed = world.closed(1);
    assert_eq!(closed.measurement.unwrap().layout_bytes_down, (2 * 2 * 64 + 34) * 4);
    assert!(closed.participants.iter().all(|part| part.layout_bytes_down == 0));
}

#[test]
fn a_lost_one_is_waited_for_until_the_deadline_and_one_that_cannot_is_not() {
    let mut world = published();
    world.carry_out(Op::Wait(DEADLINE_S - 1));
    assert_eq!(world.phase_of_first(), "publishing");
    world.carry_out(Op::Wait(1));
    let closed = world.closed(1);
    assert!(
        closed.notes.contains(
            &"c3: no evaluation in time: it needs data set \"public\" and base model tiny (blake3:\
        0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef)"
                .to_owned()
        ),
        "{:?}",
        closed.notes
    );
    let measured = closed.measurement.unwrap();
    assert_eq!((measured.state.as_str(), measured.after, closed.held_out_loss), ("missed", None, None));

    let mut world = published();
    world.obey(3);
    world.carry_out(Op::Fail(3));
    let closed = world.closed(1);
    assert_eq!(closed.measurement.unwrap().reason, "the evaluation failed: no memory");
    assert!(closed.notes.contains(&"c3: the evaluation failed: no memory".to_owned()), "{:?}", closed.notes);

    for (op, why) in [(Op::Revoke(3), "revoked"), (Op::Drain(3), "it drains")] {
        let mut world = published();
        world.carry_out(op);
        assert_eq!(world.closed(1).measurement.unwrap().reason, format!("no evaluation: {why}"));
        // In the next round it is not even asked.
        (0..3).for_each(|client| world.obey(client));
        (0..3).for_each(|client| drop(world.deliver(client)));
        world.carry_out(Op::Aggregate);
        let reason = world.closed(2).measurement.unwrap().reason;
        assert!(["it is revoked", "it is draining"].contains(&reason.as_str()), "{reason}");
        assert_eq!(world.outcome(0), "completed");
    }
}

#[test]
fn a_restart_asks_again_and_a_late_report_is_refused() {
    let mut world = published();
    world.obey(3);
    let first = world.devices[3].assignment.clone();
    world.restart();
    world.obey(3);
    assert_eq!(world.devices[3].assignment, first);
    world.work(3);
    world.carry_out(Op::Repeat);
    let client = world.devices[0].name.clone();
    let run = world.runs[0].clone();
    let evaluation = v1::Evaluation { examples: 8, ..Default::default() };
    let stray = Input::Evaluated { client, run, round: 1, evaluation, min_group: 0 };
    assert!(matches!(world.step(stray).rejection(), Rejection::NoEvaluation { .. }));
}

#[test]
fn a_client_that_is_not_there_is_refused_with_the_run() {
    let mut world = World::new(setup());
    let run_file = world.run_file().replace("client = \"c3\"", "client = \"c9\"");
    let create = Input::CreateRun {
        run: RunId::new("another").unwrap(),
        run_file,
        base: World::base(),
        start_adapter: None,
        key: KEY,
    };
    let refusal = world.step(create).rejection();
    assert_eq!((refusal.code(), refusal.to_string().contains("`c9`")), (ErrorCode::NotFound, true), "{refusal}");
    assert!(refusal.hint().unwrap().contains("enrol it first"));
}
