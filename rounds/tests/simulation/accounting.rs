//! Bytes: what went over the wire, beside what the layout's formula says, in the round that caused
//! it.

use rondo_proto::v1;

use crate::model::{Op, Setup};
use crate::run::simulate;
use crate::world::{REST_S, World};

/// A in `[4, 16]` and B in `[16, 4]` of two targets, and the head `[2, 16]` + `[2]`, in f32.
const FEDIT: u64 = (2 * 2 * 64 + 34) * 4;
/// What the simulation's wire takes for a download and for an upload.
const DOWN: u64 = 120;
const UP: u64 = 1000;

fn bytes(participant: &v1::Participant) -> [u64; 4] {
    let p = participant;
    [p.bytes_up, p.layout_bytes_up, p.bytes_down, p.layout_bytes_down]
}

#[test]
fn a_download_counts_in_the_round_that_first_asked_for_it() {
    let measured = simulate(Setup { clients: 3, rounds: 3, ..Setup::default() }, &[]);
    // The evaluation of each round needs that round's adapter; the training after it finds it at
    // hand.
    for round in 1..=3 {
        for participant in &measured.closed(round).participants {
            assert_eq!(bytes(participant), [UP, FEDIT, DOWN, FEDIT], "round {round}");
        }
    }
    let unmeasured = simulate(Setup { clients: 3, rounds: 3, eval_every: 0, ..Setup::default() }, &[]);
    for participant in &unmeasured.closed(1).participants {
        assert_eq!(bytes(participant), [UP, FEDIT, 0, 0]);
    }
    for round in 2..=3 {
        for participant in &unmeasured.closed(round).participants {
            assert_eq!(bytes(participant), [UP, FEDIT, DOWN, FEDIT], "round {round}");
        }
    }
}

#[test]
fn whoever_missed_rounds_of_a_stack_fetches_them_all() {
    let mut world =
        World::new(Setup { method: 2, clients: 4, cohort: 4, rounds: 3, eval_every: 0, ..Setup::default() });
    // Client 3 joins after two rounds.
    while world.engine.run_summary(&world.runs[0]).unwrap().round < 3 {
        for client in 0..3 {
            world.obey(client);
            world.download(client);
            world.work(client);
            world.carry_out(Op::Upload(client));
        }
        world.carry_out(Op::Aggregate);
        world.carry_out(Op::Wait(1));
        if world.engine.run_summary(&world.runs[0]).unwrap().round == 2 {
            world.obey(3);
        }
    }
    world.obey(3);
    world.download(3);
    let stack = 3 * 2 * 2 * 64 * 4 + 34 * 4;
    let late = world.participant(3);
    assert_eq!((late.bytes_down, late.layout_bytes_down), (2 * DOWN, 2 * stack));
    world.obey(0);
    world.download(0);
    let steady = world.participant(0);
    assert_eq!((steady.bytes_down, steady.layout_bytes_down), (DOWN, stack));
}

#[test]
fn frozen_tensors_are_fetched_once() {
    let world = simulate(Setup { method: 3, clients: 3, rounds: 2, eval_every: 0, ..Setup::default() }, &[]);
    // B [16, 4] and A [4, 16] of two targets once; R [4, 4] of two targets and the head each round.
    let frozen = 2 * 2 * 64 * 4;
    let trained = (2 * 16 + 34) * 4;
    for participant in &world.closed(1).participants {
        assert_eq!(bytes(participant), [UP, trained, 2 * DOWN, frozen + trained]);
    }
    for participant in &world.closed(2).participants {
        assert_eq!(bytes(participant), [UP, trained, DOWN, trained]);
    }
}

#[test]
fn what_was_assigned_and_never_fetched_counts_in_a_later_round() {
    let mut world = World::new(Setup { clients: 3, rounds: 2, ..Setup::default() });
    world.gather();
    (0..3).for_each(|client| drop(world.deliver(client)));
    world.carry_out(Op::Aggregate);
    // Clients 0 and 1 measure; client 2 takes the assignment and dies.
    (0..3).for_each(|client| world.obey(client));
    for client in [0, 1] {
        world.download(client);
        world.work(client);
    }
    assert_eq!(world.participant(2).layout_bytes_down, FEDIT);
    world.carry_out(Op::Wait(20));
    assert_eq!(bytes(&world.closed(1).participants[2]), [UP, FEDIT, 0, 0]);
    (0..3).for_each(|client| world.obey(client));
    world.download(2);
    assert_eq!(bytes(&world.participant(2)), [0, 0, DOWN, FEDIT]);
    assert_eq!(bytes(&world.participant(0)), [0; 4]);
}

#[test]
fn a_second_attempt_adds_to_the_first() {
    let mut world = World::new(Setup { clients: 3, ..Setup::default() });
    world.gather();
    world.deliver(0);
    world.carry_out(Op::Wait(20));
    world.carry_out(Op::Wait(REST_S));
    world.obey(0);
    world.deliver(0);
    assert_eq!(bytes(&world.participant(0)), [2 * UP, 2 * FEDIT, 0, 0]);
}
